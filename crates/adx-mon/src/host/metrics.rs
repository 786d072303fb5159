//! The host's metrics as a scrape target, under the names of the Prometheus node exporter, so that queries and
//! dashboards written for it work.

use std::fmt::Write;

use procfs::{Current, CurrentSI};

/// Writes some of the metrics.
type Part = fn(&mut Exposition) -> procfs::ProcResult<()>;

/// The exposition of this moment. What cannot be read is left out: a container shows less than a machine.
pub(crate) fn exposition() -> String {
    let mut text = Exposition::default();
    // Each part is worth having without the others.
    let parts: [(&str, Part); 6] =
        [("cpu", cpu), ("load", load), ("memory", memory), ("disk", disks), ("network", network), ("filesystem", filesystems)];
    for (name, part) in parts {
        if let Err(error) = part(&mut text) {
            tracing::debug!(part = name, %error, "host metrics are not readable");
        }
    }
    text.0
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

fn cpu(text: &mut Exposition) -> procfs::ProcResult<()> {
    let stat = procfs::KernelStats::current()?;
    let ticks = procfs::ticks_per_second() as f64;
    text.family("node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.");
    for (cpu, times) in stat.cpu_time.iter().enumerate() {
        let cpu = cpu.to_string();
        let modes = [
            ("user", Some(times.user)),
            ("nice", Some(times.nice)),
            ("system", Some(times.system)),
            ("idle", Some(times.idle)),
            ("iowait", times.iowait),
            ("irq", times.irq),
            ("softirq", times.softirq),
            ("steal", times.steal),
        ];
        for (mode, value) in modes {
            if let Some(value) = value {
                text.sample("node_cpu_seconds_total", &[("cpu", &cpu), ("mode", mode)], value as f64 / ticks);
            }
        }
    }
    text.family("node_boot_time_seconds", "gauge", "Unix time of the last boot.");
    text.sample("node_boot_time_seconds", &[], stat.btime as f64);
    text.family("node_context_switches_total", "counter", "Context switches.");
    text.sample("node_context_switches_total", &[], stat.ctxt as f64);
    Ok(())
}

fn load(text: &mut Exposition) -> procfs::ProcResult<()> {
    let load = procfs::LoadAverage::current()?;
    for (name, value) in [("node_load1", load.one), ("node_load5", load.five), ("node_load15", load.fifteen)] {
        text.family(name, "gauge", "Load average.");
        // The kernel gives two decimals, which a 32-bit number does not hold exactly.
        text.sample(name, &[], (f64::from(value) * 100.0).round() / 100.0);
    }
    Ok(())
}

fn memory(text: &mut Exposition) -> procfs::ProcResult<()> {
    let memory = procfs::Meminfo::current()?;
    let values = [
        ("node_memory_MemTotal_bytes", Some(memory.mem_total)),
        ("node_memory_MemFree_bytes", Some(memory.mem_free)),
        ("node_memory_MemAvailable_bytes", memory.mem_available),
        ("node_memory_Buffers_bytes", Some(memory.buffers)),
        ("node_memory_Cached_bytes", Some(memory.cached)),
        ("node_memory_SwapTotal_bytes", Some(memory.swap_total)),
        ("node_memory_SwapFree_bytes", Some(memory.swap_free)),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            text.family(name, "gauge", "From /proc/meminfo.");
            text.sample(name, &[], value as f64);
        }
    }
    Ok(())
}

fn disks(text: &mut Exposition) -> procfs::ProcResult<()> {
    let disks = procfs::diskstats()?;
    type Read = fn(&procfs::DiskStat) -> f64;
    // The kernel counts sectors of 512 bytes, whatever the disk has.
    let families: [(&str, &str, Read); 5] = [
        ("node_disk_reads_completed_total", "Reads completed.", |disk| disk.reads as f64),
        ("node_disk_writes_completed_total", "Writes completed.", |disk| disk.writes as f64),
        ("node_disk_read_bytes_total", "Bytes read.", |disk| disk.sectors_read as f64 * 512.0),
        ("node_disk_written_bytes_total", "Bytes written.", |disk| disk.sectors_written as f64 * 512.0),
        ("node_disk_io_time_seconds_total", "Seconds spent in I/O.", |disk| disk.time_in_progress as f64 / 1000.0),
    ];
    for (name, help, read) in families {
        text.family(name, "counter", help);
        for disk in disks.iter().filter(|disk| !disk.name.starts_with("loop") && !disk.name.starts_with("ram")) {
            text.sample(name, &[("device", &disk.name)], read(disk));
        }
    }
    Ok(())
}

fn network(text: &mut Exposition) -> procfs::ProcResult<()> {
    let devices = procfs::net::InterfaceDeviceStatus::current()?.0;
    type Read = fn(&procfs::net::DeviceStatus) -> u64;
    let families: [(&str, Read); 6] = [
        ("node_network_receive_bytes_total", |device| device.recv_bytes),
        ("node_network_transmit_bytes_total", |device| device.sent_bytes),
        ("node_network_receive_packets_total", |device| device.recv_packets),
        ("node_network_transmit_packets_total", |device| device.sent_packets),
        ("node_network_receive_errs_total", |device| device.recv_errs),
        ("node_network_transmit_errs_total", |device| device.sent_errs),
    ];
    for (name, read) in families {
        text.family(name, "counter", "From /proc/net/dev.");
        for device in devices.values() {
            text.sample(name, &[("device", &device.name)], read(device) as f64);
        }
    }
    Ok(())
}

fn filesystems(text: &mut Exposition) -> procfs::ProcResult<()> {
    let mounts: Vec<_> = procfs::process::Process::myself()?
        .mountinfo()?
        .into_iter()
        .filter(|mount| mount.mount_source.as_deref().is_some_and(|source| source.starts_with('/')))
        .collect();
    type Read = fn(&rustix::fs::StatVfs) -> u64;
    let families: [(&str, Read); 3] = [
        ("node_filesystem_size_bytes", |stat| stat.f_blocks),
        ("node_filesystem_free_bytes", |stat| stat.f_bfree),
        ("node_filesystem_avail_bytes", |stat| stat.f_bavail),
    ];
    for (name, read) in families {
        text.family(name, "gauge", "From statvfs(3).");
        for mount in &mounts {
            let Ok(stat) = rustix::fs::statvfs(&mount.mount_point) else { continue };
            let (device, point) = (mount.mount_source.as_deref().unwrap_or_default(), mount.mount_point.to_string_lossy());
            let labels = [("device", device), ("mountpoint", &*point), ("fstype", mount.fs_type.as_str())];
            text.sample(name, &labels, read(&stat) as f64 * stat.f_frsize as f64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        text.sample("m", &[("a", "x\"y\\z\n"), ("b", "2")], 1.5);
        assert_eq!(text.0, "m{a=\"x\\\"y\\\\z\\n\",b=\"2\"} 1.5\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_host_shows_cpu_memory_and_load() {
        let text = exposition();
        for name in ["node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}", "node_memory_MemTotal_bytes ", "node_load1 "] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
