//! The rules of `[kubernetes-events]`.

use super::Check;

impl Check<'_> {
    pub(super) fn kubernetes_events(&mut self) {
        let Some(events) = &self.file.kubernetes_events else { return };
        let name = "kubernetes-events";
        self.table(name, |check| {
            check.destination(name, &events.database, &events.table);
            for (i, namespace) in events.namespaces.iter().enumerate() {
                let problem = if !is_label(namespace) {
                    "is not the name of a namespace: up to 63 lower-case letters, digits and '-' within"
                } else if events.namespaces[..i].contains(namespace) {
                    "is there twice"
                } else {
                    continue;
                };
                check.problems.push((check.at.item("namespaces", i), format!("{name}.namespaces {namespace:?} {problem}")));
            }
            check.map_entries(&format!("{name}.add-attributes"), &events.add_attributes);
            check.exporter_references(name, &events.exporters, true);
        });
    }
}

/// A label of RFC 1123, as namespaces are named.
fn is_label(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(known) && !name.starts_with('-') && !name.ends_with('-')
}
