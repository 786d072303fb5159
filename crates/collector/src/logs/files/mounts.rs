//! Mounts of file systems that may hang, below the folders of patterns.
//!
//! The kernel's list of mounts is read without touching any of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mounts of this process, as proc_pid_mountinfo(5) describes them.
const MOUNTS: &str = "/proc/self/mountinfo";

/// File systems whose server may be away, beside those of FUSE.
const REMOTE: &[&str] = &[
    "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "smb3",
    "smbfs", "virtiofs",
];

/// Where file systems that may hang are mounted.
pub(super) struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// As they are now.
    pub(super) fn read() -> Mounts {
        let list = std::fs::read(MOUNTS).unwrap_or_else(|error| {
            tracing::warn!(path = MOUNTS, %error, "mounts are not known: a file system that hangs holds up all files of its pattern");
            Vec::new()
        });
        Mounts::parse(&list)
    }

    fn parse(list: &[u8]) -> Mounts {
        let mut mounts: Vec<PathBuf> = list.split(|byte| *byte == b'\n').filter_map(mount).collect();
        mounts.sort();
        mounts.dedup();
        Mounts(mounts)
    }

    /// Those below `folder`, which itself is not one of them.
    pub(super) fn below(&self, folder: &Path) -> Vec<PathBuf> {
        self.0.iter().filter(|mount| mount.starts_with(folder) && *mount != folder).cloned().collect()
    }
}

/// The mount point of a line, if its file system may hang.
fn mount(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.by_ref().nth(4)?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    let may_hang = kind.starts_with(b"fuse") || REMOTE.iter().any(|remote| remote.as_bytes() == kind);
    may_hang.then(|| PathBuf::from(OsString::from_vec(unescape(point))))
}

/// Space, tab, newline and backslash are three octal digits behind a backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (byte, octal) {
            (b'\\', Some(escaped)) => {
                out.push(escaped);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line is the example of proc_pid_mountinfo(5).
    #[test]
    fn remote_file_systems_are_found_below_a_folder() {
        let list = b"36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            40 35 0:50 / /srv/logs rw shared:1 master:2 - nfs4 server:/x rw\n\
            41 40 0:51 / /srv/logs/a\\040b/c rw - fuse.sshfs x rw\n\
            42 40 0:52 / /srv/logs/local rw - tmpfs x rw\n\
            43 40 0:53 / /srv/logs-other rw - cifs x rw\n\
            44 40 0:53 / /srv/logs/a\\040b/c rw - cifs over it\n\
            broken\n";
        let mounts = Mounts::parse(list);
        let below = |folder: &str| mounts.below(Path::new(folder)).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(below("/srv/logs"), ["/srv/logs/a b/c"]);
        assert_eq!(below("/srv"), ["/srv/logs", "/srv/logs/a b/c", "/srv/logs-other"]);
        assert!(below("/mnt").is_empty() && below("/srv/logs/a b/c").is_empty());
    }

    #[test]
    fn the_list_of_this_machine_can_be_read() {
        assert!(
            std::fs::read(MOUNTS).unwrap().split(|byte| *byte == b'\n').any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(b"/"))
        );
    }
}
