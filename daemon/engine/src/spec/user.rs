//! Who a process is: `user[:group]` resolved in the container's own /etc/passwd and /etc/group, which are read
//! through a descriptor of its root.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

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

/// The largest user or group that can be asked for, as docker has it.
const MAX_ID: u32 = i32::MAX.cast_unsigned();
/// Larger ones are not believed.
const MAX_FILE: u64 = 1 << 20;

/// The two files of a container.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads the files; a missing one is empty.
    pub(crate) fn read(root: BorrowedFd<'_>) -> Self {
        Self { passwd: read(root, "etc/passwd"), group: read(root, "etc/group") }
    }

    fn users(&self) -> impl Iterator<Item = (&str, u32, u32, &str)> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
            Some((*fields.first()?, number(2)?, number(3)?, fields.get(5).copied().unwrap_or_default()))
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            Some((*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3).copied().unwrap_or_default()))
        })
    }

    /// Resolves `user`, `user:group`, names or numbers, and further groups.
    pub(crate) fn resolve(&self, wanted: &str, more: &[String]) -> Result<User> {
        let (name, group) =
            wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
        let number = number(name)?;
        let found = self.users().find(|(user, uid, ..)| match number {
            _ if name.is_empty() => *uid == 0,
            Some(number) => *uid == number,
            None => *user == name,
        });
        let (login, uid, gid, home) = match (found, number) {
            (Some(found), _) => found,
            (None, Some(uid)) => ("", uid, 0, ""),
            (None, None) if name.is_empty() => ("", 0, 0, ""),
            (None, None) => {
                return Err(EngineError::invalid(format!(
                    "unable to find user {name}: no matching entries in passwd file"
                )));
            }
        };
        let mut user = User { uid, gid, groups: Vec::new(), home: home.to_owned() };
        match group.filter(|group| !group.is_empty()) {
            Some(group) => user.gid = self.group(group)?,
            None => {
                let member = |list: &str| !login.is_empty() && list.split(',').any(|member| member == login);
                user.groups =
                    self.groups().filter(|(_, _, list)| member(list)).map(|(_, gid, _)| gid).collect();
            }
        }
        for group in more {
            let gid = self.group(group)?;
            if !user.groups.contains(&gid) {
                user.groups.push(gid);
            }
        }
        // Its own group, too: else a process could leave it by setgid(2) of a program, and with it what is denied to the group.
        if !user.groups.contains(&user.gid) {
            user.groups.insert(0, user.gid);
        }
        if user.home.is_empty() {
            "/".clone_into(&mut user.home);
        }
        Ok(user)
    }

    fn group(&self, wanted: &str) -> Result<u32> {
        if let Some(number) = number(wanted)? {
            return Ok(number);
        }
        let found = self.groups().find(|(name, ..)| *name == wanted);
        found.map(|(_, gid, _)| gid).ok_or_else(|| {
            EngineError::invalid(format!("unable to find group {wanted}: no matching entries in group file"))
        })
    }
}

/// Digits are a number, always: an image could have an account of that name which is root's.
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= MAX_ID);
    number.map(Some).ok_or_else(|| {
        EngineError::invalid(format!("uids and gids must be in range 0-{MAX_ID}: {text} is not"))
    })
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
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n".into(),
            group: "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\naudio:x:29:app\n".into(),
        }
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

    /// CVE-2016-3697, CVE-2026-46680: the image has accounts whose names are numbers.
    #[test]
    fn a_number_is_no_name() {
        let passwd = "1000:x:0:0::/root:\n4294967296:x:0:0::/root:\n".into();
        let hostile = Accounts { passwd, group: "1000:x:0:\n".into() };
        let user = hostile.resolve("1000:1000", &["1000".into()]).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (1000, 1000, vec![1000]));
        assert_eq!(hostile.resolve("1000", &[]).unwrap().uid, 1000);
        for out_of_range in ["4294967296", "2147483648", "0:4294967296"] {
            assert!(hostile.resolve(out_of_range, &[]).is_err(), "{out_of_range}");
        }
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
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("etc/passwd")).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(Accounts::read(std::os::fd::AsFd::as_fd(&root)).passwd.is_empty());
    }
}
