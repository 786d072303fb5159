//! What a resource wants of Azure, and what of it is to be changed there. Pure.
//!
//! Between spec and Azure stands what the operator has last applied (`status.appliedProvisionState`). A value that is neither as
//! the spec has it nor as it was applied has been changed by hand in Azure: it is left alone, and named in the condition.

use std::collections::{BTreeMap, BTreeSet};

use azure_arm::{Autoscale, Cluster, ClusterId, ClusterWrite, Database, Empty, IdentityWrite, PropertiesWrite, Sku};
use crds::{AdxCluster, AppliedAutoScale, AppliedProvisionState, ClusterPrincipal, PrincipalRole};
use jiff::{Span, SpanRelativeTo, Unit};
use serde::Deserialize;

/// Tag of clusters that the operator has made, by which it knows those that it may make again after a failure.
pub(crate) const TAG: (&str, &str) = ("managed-by", "adx-mon-operator");

/// What a resource wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The cluster.
    pub id: ClusterId,
    /// Region.
    pub location: String,
    /// Machines; a number only where the load does not decide.
    pub sku: Sku,
    /// Fewest and most machines, where the load decides.
    pub autoscale: Option<(i64, i64)>,
    /// Resource ids of managed identities.
    pub identities: Vec<String>,
    /// Databases, and how long each keeps its data as an ISO 8601 duration.
    pub databases: Vec<(String, String)>,
    /// Who may do what.
    pub principals: Vec<ClusterPrincipal>,
}

impl Wanted {
    /// Of a resource with a complete `spec.provision`.
    ///
    /// # Errors
    /// What is wrong with the spec, for the condition.
    pub fn of(cluster: &AdxCluster) -> Result<Self, String> {
        let spec = &cluster.spec;
        let provision = spec.provision.as_ref().ok_or("spec.provision is missing")?;
        let (min, max) = (provision.auto_scale_min, provision.auto_scale_max);
        if provision.auto_scale && (min < 1 || max < min) {
            return Err(format!("spec.provision.autoScaleMin {min} and autoScaleMax {max} are no range"));
        }
        let mut databases: Vec<(String, String)> = Vec::new();
        for database in &spec.databases {
            databases.push((database.database_name.clone(), period(database)?));
        }
        let heartbeats = spec.federation.as_ref().map(|federation| federation.heartbeat_database.as_str()).unwrap_or_default();
        if !heartbeats.is_empty() && !databases.iter().any(|(name, _)| name.eq_ignore_ascii_case(heartbeats)) {
            databases.push((heartbeats.to_owned(), days(30)));
        }
        for principal in &provision.principals {
            check(principal, &databases)?;
        }
        Ok(Self {
            id: ClusterId {
                subscription: provision.subscription_id.clone(),
                group: provision.resource_group.clone(),
                name: spec.cluster_name.clone(),
            },
            location: provision.location.clone(),
            sku: Sku {
                name: provision.sku_name.clone(),
                tier: provision.tier.clone(),
                capacity: provision.capacity.filter(|_| !provision.auto_scale),
            },
            autoscale: provision.auto_scale.then_some((min, max)),
            identities: provision.user_assigned_identities.clone(),
            databases,
            principals: provision.principals.clone(),
        })
    }

    /// The cluster to be made.
    #[must_use]
    pub fn cluster(&self) -> ClusterWrite {
        let identity = match self.identities.as_slice() {
            [] => IdentityWrite { kind: "SystemAssigned".to_owned(), ..IdentityWrite::default() },
            ids => IdentityWrite {
                kind: "UserAssigned".to_owned(),
                user_assigned_identities: ids.iter().map(|id| (id.clone(), Some(Empty {}))).collect(),
            },
        };
        ClusterWrite {
            location: Some(self.location.clone()),
            tags: BTreeMap::from([(TAG.0.to_owned(), TAG.1.to_owned())]),
            sku: Some(self.sku.clone()),
            identity: Some(identity),
            properties: PropertiesWrite {
                enable_auto_stop: Some(false),
                engine_type: Some("V3".to_owned()),
                optimized_autoscale: self.autoscale.map(|(minimum, maximum)| Autoscale { version: 1, is_enabled: true, minimum, maximum }),
            },
        }
    }
}

/// Roles are of a cluster or of a database.
fn check(principal: &ClusterPrincipal, databases: &[(String, String)]) -> Result<(), String> {
    let (id, role, database) = (&principal.principal_id, principal.role, principal.database_name.as_str());
    let is_of_cluster = matches!(role, PrincipalRole::AllDatabasesAdmin | PrincipalRole::AllDatabasesViewer);
    if is_of_cluster != database.is_empty() {
        let way_out = if is_of_cluster { "take databaseName away" } else { "name its databaseName" };
        return Err(format!(
            "spec.provision.principals: {role:?} of {id} is no role of a {}: {way_out}",
            if database.is_empty() { "cluster" } else { "database" }
        ));
    }
    if !database.is_empty() && !databases.iter().any(|(name, _)| name == database) {
        return Err(format!("spec.provision.principals: {id} has a role on database {database}, which is not in spec.databases"));
    }
    Ok(())
}

/// The part of Kusto's retention policy that Resource Manager knows.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RetentionPolicy {
    soft_delete_period: String,
}

/// How long a database keeps its data: by its policy if it has one, else by its days.
fn period(database: &crds::Database) -> Result<String, String> {
    if let Some((iso, _)) = policy_period(database)? {
        return Ok(iso);
    }
    let (name, days_of) = (&database.database_name, database.retention_in_days);
    if days_of > 0 { Ok(days(days_of)) } else { Err(format!("retentionInDays {days_of} of database {name} is not above 0")) }
}

/// The period of a `retentionPolicy`, as ISO 8601 and as Kusto writes it; none without such a policy.
pub(crate) fn policy_period(database: &crds::Database) -> Result<Option<(String, String)>, String> {
    if database.retention_policy.trim().is_empty() {
        return Ok(None);
    }
    let name = &database.database_name;
    let wrong = |why: String| format!("retentionPolicy of database {name}: {why}; write it as {{\"SoftDeletePeriod\": \"30.00:00:00\"}}");
    let policy: RetentionPolicy = serde_json::from_str(&database.retention_policy).map_err(|error| wrong(error.to_string()))?;
    let period = policy.soft_delete_period;
    let iso = iso(&period).ok_or_else(|| wrong(format!("{period:?} is no timespan")))?;
    Ok(Some((iso, period)))
}

fn days(days: i64) -> String {
    format!("P{days}D")
}

/// `d.hh:mm:ss`, or days alone, as an ISO 8601 duration.
fn iso(timespan: &str) -> Option<String> {
    let (days, clock) = timespan.split_once('.').unwrap_or(if timespan.contains(':') { ("0", timespan) } else { (timespan, "0:0:0") });
    let days: u32 = days.parse().ok()?;
    let parts = clock.split(':').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()?;
    let [hours @ 0..24, minutes @ 0..60, seconds @ 0..60] = parts.as_slice() else { return None };
    Some(match (hours, minutes, seconds) {
        (0, 0, 0) => format!("P{days}D"),
        _ => format!("P{days}DT{hours}H{minutes}M{seconds}S"),
    })
}

/// What is to be changed of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// What is sent, if anything.
    pub write: Option<ClusterWrite>,
    /// What was changed by hand.
    pub by_hand: Vec<String>,
}

/// What becomes of one value.
enum Decision {
    Keep,
    Change,
    ByHand,
}

/// By spec, what was applied, and Azure. Where it is not known what was applied, nobody is known to have changed it.
fn decide<T: PartialEq>(wanted: &T, applied: Option<&T>, actual: &T) -> Decision {
    match applied {
        _ if wanted == actual => Decision::Keep,
        None => Decision::Change,
        Some(applied) if applied == actual => Decision::Change,
        Some(_) => Decision::ByHand,
    }
}

/// What is to be changed of a cluster.
#[must_use]
pub fn change(wanted: &Wanted, applied: &AppliedProvisionState, actual: &Cluster) -> Change {
    let mut change = Change::default();
    let mut write = ClusterWrite { sku: sku(wanted, applied, actual, &mut change.by_hand), ..ClusterWrite::default() };
    write.properties.optimized_autoscale = autoscale(wanted, applied, actual, &mut change.by_hand);
    write.identity = identity(wanted, applied, actual);
    change.write = Some(write).filter(|write| *write != ClusterWrite::default());
    change
}

fn sku(wanted: &Wanted, applied: &AppliedProvisionState, actual: &Cluster, by_hand: &mut Vec<String>) -> Option<Sku> {
    let machines = |name: &str, tier: &str| (name.to_ascii_lowercase(), tier.to_ascii_lowercase());
    let known = Some(machines(&applied.sku_name, &applied.tier)).filter(|(name, _)| !name.is_empty());
    let (want, is) = (machines(&wanted.sku.name, &wanted.sku.tier), machines(&actual.sku.name, &actual.sku.tier));
    let mut sku = actual.sku.clone();
    match decide(&want, known.as_ref(), &is) {
        Decision::Keep => {}
        Decision::Change => (sku.name, sku.tier) = (wanted.sku.name.clone(), wanted.sku.tier.clone()),
        Decision::ByHand => by_hand.push(format!("skuName and tier are {} and {}", actual.sku.name, actual.sku.tier)),
    }
    if let Some(capacity) = wanted.sku.capacity {
        match decide(&Some(capacity), applied.capacity.map(Some).as_ref(), &actual.sku.capacity) {
            Decision::Keep => {}
            Decision::Change => sku.capacity = Some(capacity),
            Decision::ByHand => by_hand.push(format!("capacity is {}", actual.sku.capacity.unwrap_or_default())),
        }
    }
    (sku != actual.sku).then_some(sku)
}

fn autoscale(wanted: &Wanted, applied: &AppliedProvisionState, actual: &Cluster, by_hand: &mut Vec<String>) -> Option<Autoscale> {
    let is = actual.properties.optimized_autoscale.filter(|autoscale| autoscale.is_enabled);
    let is = is.map(|autoscale| (autoscale.minimum, autoscale.maximum));
    let known = applied.auto_scale.map(|autoscale| autoscale.enabled.then_some((autoscale.minimum, autoscale.maximum)));
    // What the spec does not ask for is not taken from a cluster that was there before.
    if wanted.autoscale.is_none() && known.is_none() {
        return None;
    }
    match decide(&wanted.autoscale, known.as_ref(), &is) {
        Decision::Keep => None,
        Decision::Change => {
            let (minimum, maximum) = wanted.autoscale.or(is).unwrap_or_default();
            Some(Autoscale { version: 1, is_enabled: wanted.autoscale.is_some(), minimum, maximum })
        }
        Decision::ByHand => {
            by_hand.push(is.map_or("autoScale is off".to_owned(), |(min, max)| format!("autoScale is from {min} to {max}")));
            None
        }
    }
}

/// Those of others stay, those that were applied and are wanted no more go.
fn identity(wanted: &Wanted, applied: &AppliedProvisionState, actual: &Cluster) -> Option<IdentityWrite> {
    let has = |ids: &[String], id: &str| ids.iter().any(|other| other.eq_ignore_ascii_case(id));
    let is: BTreeSet<&String> = actual.identity.user_assigned_identities.keys().collect();
    let (gone, stay): (Vec<&String>, Vec<&String>) =
        is.iter().partition(|id| has(&applied.user_assigned_identities, id) && !has(&wanted.identities, id));
    let new: Vec<&String> = wanted.identities.iter().filter(|id| !is.iter().any(|other| other.eq_ignore_ascii_case(id))).collect();
    if gone.is_empty() && new.is_empty() {
        return None;
    }
    let is_system = actual.identity.kind.contains("SystemAssigned");
    let kind = match (is_system, stay.is_empty() && new.is_empty()) {
        (true, true) => "SystemAssigned",
        (true, false) => "SystemAssigned, UserAssigned",
        (false, true) => "None",
        (false, false) => "UserAssigned",
    };
    // All that shall be are named, so that it does not matter whether a change replaces the list.
    let mut ids: BTreeMap<String, Option<Empty>> = stay.into_iter().chain(new).map(|id| (id.clone(), Some(Empty {}))).collect();
    if !ids.is_empty() {
        ids.extend(gone.into_iter().map(|id| (id.clone(), None)));
    }
    Some(IdentityWrite { kind: kind.to_owned(), user_assigned_identities: ids })
}

/// The period that a database is to get, if another. Shortening deletes data: it is done only where the spec has changed, not
/// to a database that was there before.
#[must_use]
pub fn retention(period: &str, applied: Option<&String>, actual: &Database, by_hand: &mut Vec<String>) -> bool {
    let is = actual.properties.soft_delete_period.as_deref().map_or(f64::INFINITY, seconds);
    let (want, known) = (seconds(period), applied.map(|period| seconds(period)));
    match decide(&want, known.as_ref(), &is) {
        Decision::Keep => false,
        Decision::Change if known.is_some() || want > is => true,
        _ => {
            let period = actual.properties.soft_delete_period.as_deref().unwrap_or("for ever");
            by_hand.push(format!("database {} keeps its data {period}", actual.name()));
            false
        }
    }
}

/// Of an ISO 8601 duration. One that is not understood equals no other.
fn seconds(period: &str) -> f64 {
    let span = period.parse::<Span>().ok();
    span.and_then(|span| span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).ok()).unwrap_or(f64::NAN)
}

/// What is on record as applied once nothing is to be changed. What was changed by hand keeps its record.
#[must_use]
pub fn applied(wanted: &Wanted, before: &AppliedProvisionState, actual: &Cluster, databases: &[Database]) -> AppliedProvisionState {
    let mut after = before.clone();
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    if same(&wanted.sku.name, &actual.sku.name) && same(&wanted.sku.tier, &actual.sku.tier) {
        (after.sku_name, after.tier) = (wanted.sku.name.clone(), wanted.sku.tier.clone());
    }
    match wanted.sku.capacity {
        None => after.capacity = None,
        capacity if capacity == actual.sku.capacity => after.capacity = capacity,
        Some(_) => {}
    }
    let is = actual.properties.optimized_autoscale.filter(|autoscale| autoscale.is_enabled);
    if is.map(|autoscale| (autoscale.minimum, autoscale.maximum)) == wanted.autoscale {
        let (minimum, maximum) = wanted.autoscale.unwrap_or_default();
        after.auto_scale = Some(AppliedAutoScale { enabled: wanted.autoscale.is_some(), minimum, maximum });
    }
    after.user_assigned_identities.clone_from(&wanted.identities);
    after.retention.retain(|name, _| wanted.databases.iter().any(|(wanted, _)| wanted == name));
    for (name, period) in &wanted.databases {
        let database = databases.iter().find(|database| same(database.name(), name));
        let is = database.and_then(|database| database.properties.soft_delete_period.as_deref());
        if is.is_some_and(|is| seconds(is) == seconds(period)) {
            after.retention.insert(name.clone(), period.clone());
        }
    }
    after
}
