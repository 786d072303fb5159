//! Rules tried out on their databases: each query runs once over the last interval, and nothing is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use crds::AlertRule;
use crds::criteria::Labels;
use jiff::{SignedDuration, Timestamp};
use kusto::Client;
use rules::store::Key;
use rules::window::Window;

use super::manifest::{Document, Finding};
use super::schema::Schema;
use crate::engine::{Settings, try_rule};
use crate::flags::CommonFlags;
use crate::metrics::Outcome;
use crate::run::{Deadlines, MAX_ANSWER_BYTES};

/// Longest title that the lint accepts, in characters.
const MAX_TITLE: usize = 150;

/// Databases and labels.
pub(super) struct Config {
    databases: BTreeMap<String, Client>,
    pub(super) labels: Labels,
    region: String,
    max_notifications: usize,
}

impl Config {
    pub(super) fn new(flags: &CommonFlags) -> anyhow::Result<Config> {
        let mut databases = BTreeMap::new();
        let credentials = flags.credentials()?;
        for (database, endpoint) in flags.endpoints()? {
            let builder = Client::builder(&endpoint).application("adx-mon-alerter-lint").max_answer_bytes(MAX_ANSWER_BYTES);
            let builder = builder.credentials(Arc::clone(&credentials)).trusted_hosts(&flags.kusto_trusted_hosts);
            databases.insert(database.clone(), builder.build().with_context(|| format!("--kusto-endpoint of database {database}"))?);
        }
        let forced = [("region".to_owned(), flags.region.clone()), ("cloud".to_owned(), flags.cloud.clone())];
        Ok(Config {
            databases,
            labels: flags.tags()?.into_iter().chain(forced).collect(),
            region: flags.region.clone(),
            max_notifications: usize::try_from(flags.max_notifications).unwrap_or(usize::MAX),
        })
    }

    /// The schema of all databases; nothing without endpoints.
    pub(super) async fn schema(&self) -> anyhow::Result<Option<Schema>> {
        let mut schema: Option<Schema> = None;
        for (database, client) in &self.databases {
            let command = format!(".show database {} schema as json", kusto::text::quote_name(database));
            let table = client.mgmt(database, &command).await.with_context(|| format!("reading the schema of database {database}"))?;
            let text = table.rows.first().and_then(|row| row.first()).and_then(|cell| cell.as_str());
            let text = text.with_context(|| format!("the schema of database {database} is empty"))?;
            schema.get_or_insert_default().merge(Schema::read(text)?);
        }
        Ok(schema)
    }

    /// Runs a rule once. Throttling and failures of the service are mistakes too: nobody knows then whether the rule works.
    pub(super) async fn try_out(&self, document: &Document, key: &Key, object: &AlertRule) -> Vec<Finding> {
        if self.databases.is_empty() {
            return Vec::new();
        }
        let interval = object.spec.interval().ok().and_then(|i| SignedDuration::try_from(i).ok()).unwrap_or_default();
        let end = Timestamp::now();
        let window = Window { start: end.checked_sub(interval).unwrap_or(Timestamp::MIN), end };
        let settings = Settings {
            databases: self.databases.clone(),
            region: self.region.clone(),
            max_notifications: self.max_notifications,
            query_deadline: Deadlines::default().query,
            quick: Deadlines::default().quick,
            targets: Vec::new(),
        };
        let tried = match try_rule(key, object, window, &settings).await {
            Ok(tried) => tried,
            Err(error) => return vec![self.finding(document, key, error.to_string())],
        };
        let mut findings = Vec::new();
        match tried.outcome {
            Outcome::Success => {}
            Outcome::NotificationThrottled => {
                let message = format!(
                    "one run returns more than {} rows, of which the rest is held back: summarize, or raise --max-notifications",
                    self.max_notifications
                );
                findings.push(self.finding(document, key, message));
            }
            _ => findings.push(self.finding(document, key, tried.message)),
        }
        for title in tried.titles.iter().filter(|title| title.chars().count() > MAX_TITLE) {
            let message = format!("a title has {} characters, more than {MAX_TITLE}, make it shorter: {title:?}", title.chars().count());
            findings.push(self.finding(document, key, message));
        }
        findings
    }

    fn finding(&self, document: &Document, key: &Key, message: String) -> Finding {
        Finding { rule: Some(key.to_string()), ..document.error("spec.query", message) }
    }
}
