//! Whatever goes wrong on the way, and in Azure: in the end all is as the spec has it.

use std::time::Duration;

use azure_testing::resource_manager::Faults;
use tokio::time::Instant;

use super::world::{World, spec};

/// Sequences of each test: there are four, so that they run side by side.
const SEQUENCES: u64 = 250;
/// Longest time to the end, on the clock of Azure.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

/// Every sequence has its own rate of failures, and operators that end at random, with what they last said on record or not.
async fn all_converge(quarter: u64) {
    let mut requests = 0;
    for seed in 0..SEQUENCES {
        requests += converges(quarter * SEQUENCES + seed).await;
    }
    // A run without a failure takes fewer than 100 requests.
    assert!(requests > 100 * SEQUENCES as usize, "{requests}");
}

#[tokio::test(start_paused = true)]
async fn sequences_of_failures_converge() {
    all_converge(0).await;
}

#[tokio::test(start_paused = true)]
async fn other_sequences_of_failures_converge() {
    all_converge(1).await;
}

#[tokio::test(start_paused = true)]
async fn still_other_sequences_of_failures_converge() {
    all_converge(2).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_sequences_of_failures_converge() {
    all_converge(3).await;
}

async fn converges(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(spec());
    world.azure.inject(Faults::seeded(seed, random.f64() * 0.6, random.u32(1..40)));
    let (started, mut edits) = (Instant::now(), 0);
    let deaths = random.f64() * 0.2;
    loop {
        let provisioned = world.unrecorded_step().await;
        let dies = started.elapsed() < PATIENCE / 2 && random.f64() < deaths;
        if !dies || random.bool() {
            world.record(&provisioned);
        }
        if dies {
            world.restart();
            continue;
        }
        let verdict = &provisioned.verdict;
        if ["ClusterReady", "Complete"].contains(&verdict.reason) {
            if edits == 2 {
                break;
            }
            // There and back again: what is wanted in the end is what it began with.
            edits += 1;
            let sku = if edits == 1 { "Standard_L16as_v3" } else { "Standard_L8as_v3" };
            world.edit(|spec| spec["provision"]["skuName"] = sku.into());
        }
        assert!(started.elapsed() < PATIENCE, "seed {seed}: {verdict:?}");
        // A look that is made too early costs nothing.
        let pause = provisioned.again.unwrap();
        tokio::time::sleep(if random.u8(0..4) == 0 { pause / 2 } else { pause }).await;
    }
    assert_eq!(world.azure.violations(), Vec::<String>::new(), "seed {seed}");
    world.assert_as_wanted();
    world.azure.take_log().len()
}
