//! What is done in Azure: each function does what can be done at once of its part, and says what is waited for, if anything.

use std::time::Duration;

use azure_arm::{Cluster, Database, DatabaseWrite, Error, Kind, NameAnswer, Principal, PrincipalAssignment, Progress, Registration, State};
use crds::{AppliedProvisionState, ClusterPrincipal};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::wanted::{self, TAG, Wanted};
use super::{AFTER_REFUSAL, Azure, Found, Memory};

const PROVIDER: &str = "Microsoft.Kusto";
/// Between looks at what takes minutes.
const MINUTES: Duration = Duration::from_secs(60);
/// Between looks at what takes moments.
const MOMENTS: Duration = Duration::from_secs(15);
/// Requests of one step that make something; the rest is for the next one.
const AT_A_TIME: usize = 8;

/// None if this part is as it shall be.
type Part = Result<Option<Found>, Error>;

impl Azure {
    /// The next step.
    pub(super) async fn go_on(&self, wanted: &Wanted, before: &AppliedProvisionState, memory: &mut Memory) -> Result<Found, Error> {
        if let Some(found) = self.follow(memory).await? {
            return Ok(found);
        }
        let cluster = match self.arm.cluster(&wanted.id).await {
            Err(error) if error.kind == Kind::Forbidden => return self.unseen(wanted, error).await,
            found => found?,
        };
        let Some(cluster) = cluster else { return self.make(wanted, memory).await };
        if !cluster.properties.uri.is_empty() {
            memory.endpoint = Some(cluster.properties.uri.clone());
        }
        if let Some(found) = self.wait_until_it_runs(wanted, before, &cluster, memory).await? {
            return Ok(found);
        }
        let mut by_hand = Vec::new();
        let databases = self.arm.databases(&wanted.id).await?;
        if let Some(found) = self.databases(wanted, before, &databases, &mut by_hand, memory).await? {
            return Ok(found);
        }
        if let Some(found) = self.principals(wanted, memory).await? {
            return Ok(found);
        }
        let change = wanted::change(wanted, before, &cluster);
        if let Some(write) = change.write {
            if cluster.properties.provisioning_state == State::Failed && must_rest(memory) {
                return Ok(failed(format!("changing {}", wanted.id)));
            }
            let operation = self.arm.update_cluster(&wanted.id, &cluster.etag, &write).await?;
            memory.operations.extend(operation);
            return Ok(pending(memory, format!("{} is being changed", wanted.id), MINUTES / 2));
        }
        by_hand.extend(change.by_hand);
        Ok(Found::Ready { applied: wanted::applied(wanted, before, &cluster, &databases), by_hand })
    }

    /// Asks for the operations that Azure has accepted.
    async fn follow(&self, memory: &mut Memory) -> Part {
        let mut running: Option<(Duration, String)> = None;
        let mut at = 0;
        while let Some(operation) = memory.operations.get_mut(at) {
            match self.arm.progress(operation).await {
                Ok(Progress::Running(again)) => {
                    operation.retry_after = again;
                    let longest = running.map_or(again, |(longest, _)| longest.max(again));
                    running = Some((longest, format!("{}: under way", operation.doing())));
                    at += 1;
                }
                Ok(Progress::Failed(error)) => {
                    memory.operations.remove(at);
                    memory.failed = Some(Instant::now());
                    return Ok(Some(Found::Failed(error)));
                }
                // The state of the resource tells the rest.
                Ok(Progress::Succeeded) => drop(memory.operations.remove(at)),
                Err(error) if [Kind::NotFound, Kind::Forbidden].contains(&error.kind) => drop(memory.operations.remove(at)),
                Err(error) => return Err(error),
            }
        }
        Ok(running.map(|(again, message)| Found::Pending { message, again }))
    }

    /// A cluster that may not be read is taken for one that runs, if there is one.
    async fn unseen(&self, wanted: &Wanted, error: Error) -> Result<Found, Error> {
        match self.arm.check_cluster_name(&wanted.id.subscription, &wanted.location, &wanted.id.name).await {
            Ok(NameAnswer::Taken) => Ok(Found::Restricted(error)),
            Ok(NameAnswer::Available) => Err(error),
            Ok(NameAnswer::Invalid(why)) => Ok(Found::Invalid(why)),
            Err(other) if other.kind == Kind::Forbidden => Ok(Found::Restricted(error)),
            Err(other) => Err(other),
        }
    }

    /// Provider, resource group, name, cluster. Who may not read one of the first three may still make the last, and
    /// hears from Azure if not.
    async fn make(&self, wanted: &Wanted, memory: &mut Memory) -> Result<Found, Error> {
        let (subscription, id) = (wanted.id.subscription.as_str(), &wanted.id);
        let registration = unless_forbidden(self.arm.provider(subscription, PROVIDER).await)?;
        match registration.unwrap_or(Registration::Registered) {
            Registration::Registered => {}
            Registration::Registering => return Ok(pending(memory, format!("provider {PROVIDER} is being registered"), MINUTES)),
            Registration::Not(_) => {
                self.arm.register_provider(subscription, PROVIDER).await?;
                return Ok(pending(memory, format!("provider {PROVIDER} is being registered"), MINUTES));
            }
        }
        if !unless_forbidden(self.arm.has_group(subscription, &id.group).await)?.unwrap_or(true) {
            self.arm.put_group(subscription, &id.group, &wanted.location).await?;
        }
        let name = unless_forbidden(self.arm.check_cluster_name(subscription, &wanted.location, &id.name).await)?;
        match name.unwrap_or(NameAnswer::Available) {
            NameAnswer::Available => {}
            NameAnswer::Invalid(why) => return Ok(Found::Invalid(why)),
            // Accepted, and not everywhere known yet.
            NameAnswer::Taken if memory.made.is_some_and(|made| made.elapsed() < AFTER_REFUSAL) => {
                return Ok(pending(memory, format!("{id} is being made"), MOMENTS));
            }
            NameAnswer::Taken => return Ok(Found::NameTaken),
        }
        match self.arm.create_cluster(id, &wanted.cluster()).await {
            Ok(operation) => memory.operations.extend(operation),
            // Somebody was faster, or an answer was lost.
            Err(error) if error.kind == Kind::Changed => return Ok(pending(memory, format!("{id} is there"), MOMENTS)),
            Err(error) => return Err(error),
        }
        memory.made = Some(Instant::now());
        tracing::info!(cluster = %id, location = wanted.location, sku = wanted.sku.name, "a cluster is being made in Azure");
        Ok(pending(memory, format!("{id} is being made"), MINUTES))
    }

    async fn wait_until_it_runs(&self, wanted: &Wanted, before: &AppliedProvisionState, cluster: &Cluster, memory: &mut Memory) -> Part {
        let (id, properties) = (&wanted.id, &cluster.properties);
        let state = properties.state.as_str();
        match &properties.provisioning_state {
            State::Pending(word) => return Ok(Some(pending(memory, format!("{id}: Azure is at it ({word}, {state})"), MINUTES / 2))),
            _ if state.eq_ignore_ascii_case("Running") => return Ok(None),
            State::Succeeded => {
                let way_out = if state.eq_ignore_ascii_case("Stopped") { "; start it there" } else { "" };
                let message = format!("{id} is {state} in Azure{way_out}. {}", properties.state_reason);
                return Ok(Some(pending(memory, message.trim().to_owned(), MINUTES)));
            }
            State::Failed => {}
        }
        // One that never ran, and that nobody else has made, is made again.
        let is_ours = cluster.tags.get(TAG.0).is_some_and(|by| by == TAG.1) && before.sku_name.is_empty();
        if must_rest(memory) || !is_ours {
            return Ok(Some(failed(format!("{id} is {state} in Azure. {}", properties.state_reason))));
        }
        let operation = self.arm.repeat_cluster(id, &cluster.etag, &wanted.cluster()).await?;
        memory.operations.extend(operation);
        Ok(Some(pending(memory, format!("{id} is being made again"), MINUTES)))
    }

    async fn databases(
        &self,
        wanted: &Wanted,
        before: &AppliedProvisionState,
        actual: &[Database],
        by_hand: &mut Vec<String>,
        memory: &mut Memory,
    ) -> Part {
        let (mut writes, mut waiting) = (0, Vec::new());
        for (name, period) in &wanted.databases {
            let write = DatabaseWrite { location: wanted.location.clone(), soft_delete_period: period.clone() };
            let found = actual.iter().find(|database| database.name().eq_ignore_ascii_case(name));
            let operation = match found.map(|database| (database, &database.properties.provisioning_state)) {
                Some((_, State::Pending(_))) => None,
                Some((_, State::Failed)) if must_rest(memory) => return Ok(Some(failed(format!("database {name} of {}", wanted.id)))),
                Some((_, State::Failed)) => self.arm.put_database(&wanted.id, name, &write).await?,
                // A follower's data is kept as its leader says.
                Some((database, State::Succeeded)) if database.kind.eq_ignore_ascii_case("ReadOnlyFollowing") => continue,
                Some((database, State::Succeeded)) => match wanted::retention(period, before.retention.get(name), database, by_hand) {
                    true => self.arm.update_database(&wanted.id, name, &write).await?,
                    false => continue,
                },
                // A list may not have what was made a moment ago.
                None => match self.arm.check_database_name(&wanted.id, name).await? {
                    NameAnswer::Available => self.arm.put_database(&wanted.id, name, &write).await?,
                    NameAnswer::Taken => None,
                    NameAnswer::Invalid(why) => return Ok(Some(Found::Invalid(why))),
                },
            };
            memory.operations.extend(operation);
            waiting.push(name.as_str());
            writes += 1;
            if writes == AT_A_TIME {
                break;
            }
        }
        Ok((!waiting.is_empty()).then(|| pending(memory, format!("databases are being made or changed: {}", waiting.join(", ")), MOMENTS)))
    }

    async fn principals(&self, wanted: &Wanted, memory: &mut Memory) -> Part {
        let mut places: Vec<Option<&str>> = wanted.principals.iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        let (mut writes, mut waiting) = (0, Vec::new());
        for place_of in places {
            let actual = self.arm.principal_assignments(&wanted.id, place_of).await?;
            for principal in wanted.principals.iter().filter(|principal| place(principal) == place_of) {
                let found = actual.iter().find(|assignment| is(assignment, principal));
                match found.map(|assignment| &assignment.properties.provisioning_state) {
                    Some(State::Succeeded) => continue,
                    Some(State::Pending(_)) => {}
                    Some(State::Failed) if must_rest(memory) => {
                        return Ok(Some(failed(format!("the role {:?} of {}", principal.role, principal.principal_id))));
                    }
                    Some(State::Failed) | None if writes < AT_A_TIME => {
                        let name = found.map_or_else(|| assignment_name(principal), |assignment| assignment.name().to_owned());
                        let operation = self.arm.assign_principal(&wanted.id, place_of, &name, &write(principal)).await?;
                        memory.operations.extend(operation);
                        writes += 1;
                    }
                    Some(State::Failed) | None => {}
                }
                waiting.push(principal.principal_id.as_str());
            }
        }
        Ok((!waiting.is_empty()).then(|| pending(memory, format!("roles are being given to {}", waiting.join(", ")), MOMENTS)))
    }
}

/// Where a role is: in the cluster, or in a database.
fn place(principal: &ClusterPrincipal) -> Option<&str> {
    Some(principal.database_name.as_str()).filter(|name| !name.is_empty())
}

/// Whether an assignment, whoever made it, is the one that is wanted.
fn is(assignment: &PrincipalAssignment, wanted: &ClusterPrincipal) -> bool {
    let (found, id) = (&assignment.properties, &wanted.principal_id);
    let is_same =
        found.principal_id.eq_ignore_ascii_case(id) || found.aad_object_id.as_ref().is_some_and(|object| object.eq_ignore_ascii_case(id));
    let tenant =
        found.tenant_id.as_ref().is_none_or(|tenant| wanted.tenant_id.is_empty() || tenant.eq_ignore_ascii_case(&wanted.tenant_id));
    is_same && tenant && found.role == format!("{:?}", wanted.role)
}

/// The same each time, so that what is asked for twice is there once.
fn assignment_name(principal: &ClusterPrincipal) -> String {
    let text =
        format!("{}\n{:?}\n{}", principal.principal_id.to_ascii_lowercase(), principal.role, principal.tenant_id.to_ascii_lowercase());
    format!("adx-mon-{:016x}", xxh3_64(text.as_bytes()))
}

fn write(principal: &ClusterPrincipal) -> Principal {
    Principal {
        principal_id: principal.principal_id.clone(),
        principal_type: format!("{:?}", principal.principal_type),
        role: format!("{:?}", principal.role),
        tenant_id: Some(principal.tenant_id.clone()).filter(|tenant| !tenant.is_empty()),
        ..Principal::default()
    }
}

/// Waits as long as the operations that were just accepted ask for, or else so long.
fn pending(memory: &Memory, message: String, again: Duration) -> Found {
    let asked = memory.operations.iter().map(|operation| operation.retry_after).max();
    Found::Pending { message, again: asked.unwrap_or(again) }
}

/// Whether Azure is left alone for now, after something was seen to have failed there.
fn must_rest(memory: &mut Memory) -> bool {
    let now = Instant::now();
    if now.duration_since(*memory.failed.get_or_insert(now)) < AFTER_REFUSAL {
        return true;
    }
    memory.failed = None;
    false
}

fn failed(doing: String) -> Found {
    Found::Failed(Error {
        doing,
        kind: Kind::Refused,
        status: None,
        code: String::new(),
        message: "its provisioningState is Failed; the activity log of the resource in Azure has the reason".to_owned(),
        retry_after: None,
    })
}

fn unless_forbidden<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if error.kind == Kind::Forbidden => Ok(None),
        answer => answer.map(Some),
    }
}
