//! Restarts one after the other, and more and fewer ingestors, under load: nobody is killed, so nothing may be in doubt.

use super::check::{all_rows_are_there, check};
use super::senders::Senders;
use super::world::{ANY_CERTIFICATE, Node, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_and_three_to_five_to_two_ingestors_lose_and_double_nothing() {
    let Some(mut world) = World::start(8).await else { return };
    world.add_ingestors(3);
    for at in 0..3 {
        world.add_collector(&[at, (at + 1) % 3, (at + 2) % 3], ANY_CERTIFICATE, "");
    }
    world.ready().await;
    let senders = Senders::start(&world);

    for at in 0..3 {
        world.ingestors[at].program.terminate().await;
        world.ingestors[at].program.start_again();
        world.node_ready(&world.ingestors[at]).await;
    }
    for at in 0..3 {
        world.collectors[at].program.terminate().await;
        world.collectors[at].program.start_again();
        world.node_ready(&world.collectors[at]).await;
    }
    world.kustd.terminate().await;
    world.kustd.start_again();

    world.add_ingestors(2);
    world.ready().await;
    members_seen(&world, 0..5, 5).await;
    let newcomers = &world.ingestors[3..];
    eventually(async || match accepted(&world, newcomers).await? {
        0 => Err("no table of a newcomer has rows".to_owned()),
        _ => Ok(()),
    })
    .await;

    // The last ones go, one of which collectors send to.
    world.members(0..2);
    members_seen(&world, 0..5, 2).await;
    for leaver in &mut world.ingestors[2..] {
        leaver.program.terminate().await;
        let output = leaver.program.output();
        let last = output.lines().rev().take(3).collect::<Vec<_>>();
        assert!(last.iter().any(|line| line.contains("everything is uploaded, or with a peer")), "{}: {last:?}", leaver.name);
    }
    let sent = senders.stop().await;
    all_rows_are_there(&world, &sent).await;

    // What the leavers had in Kusto's queue they ask for when they are back.
    world.members(0..5);
    world.ingestors[2..].iter_mut().for_each(|leaver| leaver.program.start_again());
    world.ready().await;
    let figures = check(&world, &sent).await;
    eprintln!("{figures}");
    assert!(figures.acknowledged > 100, "too little was sent to say anything: {figures}");
    assert_eq!((figures.doubled, figures.maybe_duplicate), (0, 0), "{figures}");
}

/// Waits until these ingestors have read how many there are.
async fn members_seen(world: &World, ingestors: std::ops::Range<usize>, count: usize) {
    let expected = format!("\nadxmon_ingestor_members {count}\n");
    for node in &world.ingestors[ingestors] {
        let seen = async || match world.get(node, "/metrics").await?.contains(&expected) {
            true => Ok(()),
            false => Err(format!("{} does not see {count} members", node.name)),
        };
        eventually(seen).await;
    }
}

async fn accepted(world: &World, nodes: &[Node]) -> Result<u64, String> {
    let mut sum = 0;
    for node in nodes {
        let report: serde_json::Value = serde_json::from_str(&world.get(node, "/debug/ledger?format=json").await?).unwrap();
        sum += report["total"]["accepted"].as_u64().unwrap();
    }
    Ok(sum)
}
