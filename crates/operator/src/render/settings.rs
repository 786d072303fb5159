//! What is the same for all resources of an operator.

use crds::criteria::Labels;

/// Settings of the operator that show in what it installs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Images of resources that name none.
    pub images: Images,
    /// Labels of the cluster; `region` and `cloud` have a meaning of their own.
    pub labels: Labels,
}

/// Where images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Registry and folder.
    pub prefix: String,
    /// Their tag.
    pub tag: String,
}

impl Default for Images {
    /// Those of the reference.
    fn default() -> Self {
        Self { prefix: "ghcr.io/azure/adx-mon".to_owned(), tag: "latest".to_owned() }
    }
}

impl Images {
    /// The image of a component: what the resource names, or the operator's.
    pub(crate) fn of(&self, component: &str, named: &str) -> String {
        match named.trim() {
            "" => format!("{}/{component}:{}", self.prefix.trim_end_matches('/'), self.tag),
            image => image.to_owned(),
        }
    }
}

impl Settings {
    /// The region, `default` where no label says it.
    pub fn region(&self) -> &str {
        self.labels.get("region").filter(|region| !region.is_empty()).unwrap_or("default")
    }

    /// `--flag=key=value` for each label.
    pub(crate) fn label_flags(&self, flag: &str) -> Vec<String> {
        self.labels.iter().map(|(name, value)| format!("--{flag}={name}={value}")).collect()
    }
}
