//! Clusters in Azure, on a Resource Manager that is built from its public description. Time stands still unless a test lets it
//! pass, and requests do not leave the process.

mod faults;
mod plans;
mod reasons;
mod steps;
pub(crate) mod world;
