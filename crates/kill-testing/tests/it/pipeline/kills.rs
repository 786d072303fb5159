//! kill -9 of ingestors, collectors and kustd, several at a time, while rows come in.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use reqwest::Client;

use super::check::check;
use super::senders::Senders;
use super::world::{ANY_CERTIFICATE, Node, World, page_ready};
use crate::program::{Program, soak_factor};
use crate::random::Random;

/// Kills in CI; in a soak so many times the factor.
const KILLS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_all_lose_no_acknowledged_row_and_double_none_that_is_not_counted() {
    let Some(mut world) = World::start(6).await else { return };
    world.add_ingestors(3);
    // Three shapes of the same tables.
    for (at, lifted) in
        ["", "[[lift-labels]]\nname = 'request'\n", "[[lift-labels]]\nname = 'request'\ncolumn = 'Number'\n"].iter().enumerate()
    {
        world.add_collector(&[at, (at + 1) % 3, (at + 2) % 3], ANY_CERTIFICATE, lifted);
    }
    world.ready().await;
    let senders = Senders::start(&world);
    let kills = torment(&mut world).await;
    world.ready().await;
    // Whatever was in doubt has to be found out without help.
    let sent = senders.stop().await;
    let figures = check(&world, &sent).await;
    eprintln!("{figures}");
    assert!(figures.acknowledged > 10 * kills, "too little was sent to say anything: {figures}");
}

/// Kills until there were enough of them; how many.
async fn torment(world: &mut World) -> usize {
    let left = AtomicI64::new((KILLS * soak_factor()).into());
    let http = world.http().clone();
    let kustd = vec![Victim { ready: world.kustd_page("/metrics"), program: &mut world.kustd }];
    let ingestors = world.ingestors.iter_mut().map(Victim::from).collect();
    let collectors = world.collectors.iter_mut().map(Victim::from).collect();
    let kills = tokio::join!(
        torment_some(ingestors, Random::new(11), 3000, &http, &left),
        torment_some(collectors, Random::new(12), 4000, &http, &left),
        torment_some(kustd, Random::new(13), 9000, &http, &left),
    );
    eprintln!("{} kills of ingestors, {} of collectors, {} of kustd", kills.0, kills.1, kills.2);
    kills.0 + kills.1 + kills.2
}

struct Victim<'a> {
    program: &'a mut Program,
    /// A page that it has once it is up.
    ready: String,
}

impl<'a> From<&'a mut Node> for Victim<'a> {
    fn from(node: &'a mut Node) -> Victim<'a> {
        Victim { ready: format!("{}/readyz", node.url), program: &mut node.program }
    }
}

/// Kills one of these after the other, while there are kills left, most of them up to `longest` milliseconds after all of
/// them were up, and some in the middle of a start; how often.
async fn torment_some(mut victims: Vec<Victim<'_>>, mut random: Random, longest: u64, http: &Client, left: &AtomicI64) -> usize {
    while left.fetch_sub(1, Ordering::Relaxed) > 0 {
        if random.percent(25) {
            tokio::time::sleep(random.milliseconds(10, 800)).await;
        } else {
            // However slow the machine is, something has to happen between the kills.
            for victim in &victims {
                page_ready(http, &victim.ready).await;
            }
            tokio::time::sleep(random.milliseconds(200, longest)).await;
        }
        let victim = random.below(victims.len() as u64) as usize;
        let pause = if random.percent(50) { Duration::ZERO } else { random.milliseconds(0, 2000) };
        victims[victim].program.kill(tokio::time::sleep(pause)).await;
    }
    victims.iter().map(|victim| victim.program.kills).sum()
}
