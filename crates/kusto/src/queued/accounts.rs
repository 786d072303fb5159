//! Which storage account comes first: those that worked recently, in turns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use azure_storage::Resource;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this time a result counts half.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Rates of success that are treated alike, as Microsoft's clients have them.
const TIERS: [f64; 3] = [0.9, 0.7, 0.3];

#[derive(Default)]
pub(crate) struct Accounts {
    records: Mutex<HashMap<String, Record>>,
    turn: AtomicUsize,
}

struct Record {
    successes: f64,
    failures: f64,
    at: Instant,
}

impl Record {
    fn decayed(&self, now: Instant) -> (f64, f64) {
        let factor = 0.5f64.powf((now - self.at).as_secs_f64() / HALF_LIFE.as_secs_f64());
        (self.successes * factor, self.failures * factor)
    }

    /// The tier, 0 the best. What is hardly known is taken for good.
    fn tier(&self, now: Instant) -> usize {
        let (successes, failures) = self.decayed(now);
        let rate = (successes + 0.1) / (successes + failures + 0.1);
        TIERS.iter().position(|least| rate >= *least).unwrap_or(TIERS.len())
    }
}

impl Accounts {
    /// Notes how a request to an account went.
    pub(crate) fn report(&self, account: &str, success: bool) {
        let now = Instant::now();
        let mut records = self.records.lock();
        let (successes, failures) = records.get(account).map_or((0.0, 0.0), |record| record.decayed(now));
        let record = match success {
            true => Record { successes: successes + 1.0, failures, at: now },
            false => Record { successes, failures: failures + 1.0, at: now },
        };
        records.insert(account.to_owned(), record);
    }

    /// The resources in the order in which to try them: one of each account first, the better accounts before the worse, equal
    /// ones in turns.
    pub(crate) fn order(&self, resources: &[Resource]) -> Vec<Resource> {
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut accounts: Vec<(String, Vec<Resource>)> = Vec::new();
        for resource in resources {
            let account = resource.account();
            match accounts.iter_mut().find(|(name, _)| *name == account) {
                Some((_, members)) => members.push(resource.clone()),
                None => accounts.push((account, vec![resource.clone()])),
            }
        }
        if !accounts.is_empty() {
            let first = turn % accounts.len();
            // after a full turn the next container of each account is due
            let round = turn / accounts.len();
            accounts.rotate_left(first);
            for (_, members) in &mut accounts {
                let first = round % members.len();
                members.rotate_left(first);
            }
        }
        let records = self.records.lock();
        accounts.sort_by_key(|(name, _)| records.get(name).map_or(0, |record| record.tier(now)));
        let longest = accounts.iter().map(|(_, members)| members.len()).max().unwrap_or(0);
        (0..longest).flat_map(|at| accounts.iter().filter_map(move |(_, members)| members.get(at))).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resources(names: &[&str]) -> Vec<Resource> {
        let url = |name: &&str| {
            let (account, container) = name.split_once('/').unwrap();
            Resource::parse(&format!("https://{account}.blob.core.windows.net/{container}?sig=x")).unwrap()
        };
        names.iter().map(url).collect()
    }

    fn names(resources: &[Resource]) -> Vec<String> {
        resources.iter().map(|resource| format!("{}/{}", resource.account(), resource.name())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn equal_accounts_take_turns_and_so_do_their_containers() {
        let accounts = Accounts::default();
        let all = resources(&["a/1", "a/2", "b/1", "b/2"]);
        let firsts: Vec<String> = (0..8).map(|_| names(&accounts.order(&all))[0].clone()).collect();
        assert_eq!(firsts, ["a/1", "b/1", "a/2", "b/2", "a/1", "b/1", "a/2", "b/2"]);
        assert_eq!(names(&accounts.order(&all)), ["a/1", "b/1", "a/2", "b/2"], "one of each account first");
        assert_eq!(accounts.order(&[]), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_failed_comes_last_until_that_is_long_ago() {
        let accounts = Accounts::default();
        let all = resources(&["a/1", "b/1", "c/1"]);
        for _ in 0..10 {
            accounts.report("a", true);
            accounts.report("b", true);
        }
        accounts.report("b", false);
        accounts.report("b", false);
        accounts.report("c", false);
        for _ in 0..6 {
            let order = names(&accounts.order(&all));
            assert_eq!((order[1].as_str(), order[2].as_str()), ("b/1", "c/1"));
        }
        tokio::time::advance(HALF_LIFE * 10).await;
        let firsts: Vec<String> = (0..3).map(|_| names(&accounts.order(&all))[0].clone()).collect();
        assert!(firsts.contains(&"c/1".to_owned()), "{firsts:?}");
    }
}
