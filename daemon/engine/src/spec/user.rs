//! Who a process is: `user[:group]` resolved in the container's own /etc/passwd and /etc/group, which are read
//! through a descriptor of its root.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

use berth_spec::accounts::{self, AccountError};
use berth_sys::path::open_in_root;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{EngineError, Result};

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Larger ones are not believed.
const MAX_FILE: u64 = 1 << 20;

/// The accounts of a container.
#[derive(Debug, Default)]
pub(crate) struct Accounts(accounts::Accounts);

impl Accounts {
    /// Reads the files; a missing one is empty.
    pub(crate) fn read(root: BorrowedFd<'_>) -> Self {
        Self(accounts::Accounts::new(read(root, "etc/passwd"), read(root, "etc/group")))
    }

    /// Resolves `user`, `user:group`, names or numbers, and further groups.
    pub(crate) fn resolve(&self, wanted: &str, more: &[String]) -> Result<User> {
        let invalid = |error: AccountError| EngineError::invalid(error.to_string());
        let (name, group) =
            wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
        let login = self.0.login(if name.is_empty() { "0" } else { name }).map_err(invalid)?;
        let home = login.home.unwrap_or_else(|| "/".to_owned());
        let mut user = User { uid: login.uid, gid: login.gid, groups: Vec::new(), home };
        match group.filter(|group| !group.is_empty()) {
            Some(group) => user.gid = self.0.gid(group).map_err(invalid)?,
            None => user.groups = login.groups,
        }
        for group in more {
            let gid = self.0.gid(group).map_err(invalid)?;
            if !user.groups.contains(&gid) {
                user.groups.push(gid);
            }
        }
        // Its own group, too: else a process could leave it by setgid(2) of a program, and with it what is denied to the group.
        if !user.groups.contains(&user.gid) {
            user.groups.insert(0, user.gid);
        }
        Ok(user)
    }
}

fn read(root: BorrowedFd<'_>, path: &str) -> String {
    let mut bytes = Vec::new();
    // O_NONBLOCK: a FIFO in the file's place must not hang the engine.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = open_in_root(root, path, flags, Mode::empty()).map(File::from);
    if let Ok(file) = opened
        && file.metadata().is_ok_and(|meta| meta.is_file())
        && let Err(error) = file.take(MAX_FILE).read_to_end(&mut bytes)
    {
        tracing::debug!(path, %error, "an account file of a container cannot be read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts(accounts::Accounts::new(
            "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n".into(),
            "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\naudio:x:29:app\n".into(),
        ))
    }

    #[test]
    fn names_numbers_and_groups() {
        let resolve = |wanted| accounts().resolve(wanted, &[]).unwrap();
        assert_eq!(resolve(""), User { uid: 0, gid: 0, groups: vec![0, 10], home: "/root".into() });
        assert_eq!(
            resolve("app"),
            User { uid: 1000, gid: 1001, groups: vec![1001, 10, 29], home: "/home/app".into() }
        );
        assert_eq!(resolve("1000"), resolve("app"));
        assert_eq!(
            resolve("app:wheel"),
            User { uid: 1000, gid: 10, groups: vec![10], home: "/home/app".into() }
        );
        assert_eq!(resolve("77:88"), User { uid: 77, gid: 88, groups: vec![88], home: "/".into() });
        assert_eq!(resolve("77").gid, 0);
        assert_eq!(accounts().resolve("77", &["audio".into(), "5".into()]).unwrap().groups, [0, 29, 5]);
    }

    #[test]
    fn strangers_are_refused() {
        let message = |wanted: &str| accounts().resolve(wanted, &[]).unwrap_err().message().to_owned();
        assert_eq!(message("bob"), "unable to find user bob: no matching entries in passwd file");
        assert_eq!(message("app:bob"), "unable to find group bob: no matching entries in group file");
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(Accounts::read(std::os::fd::AsFd::as_fd(&root)).resolve("root", &[]).is_err());
    }
}
