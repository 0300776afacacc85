//! `user[:group]` to numbers, by the rootfs's own passwd and group files.

use std::io;

use berth_spec::accounts::{self, AccountError, Login, number};

use crate::rootdir::RootDir;

/// More of a passwd file is not read.
const MAX_FILE: u64 = 16 << 20;

/// A user as a process or file owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<String>,
}

/// The accounts of one root.
#[derive(Debug, Default)]
pub(crate) struct Accounts(accounts::Accounts);

impl Accounts {
    pub(crate) fn read(root: &RootDir) -> io::Result<Self> {
        let file = |path| Ok::<_, io::Error>(root.read_small(path, MAX_FILE)?.unwrap_or_default());
        Ok(Self(accounts::Accounts::new(file("etc/passwd")?, file("etc/group")?)))
    }

    /// Who a process of `USER` runs as. Its own group is always one of its supplementary groups, too.
    pub(crate) fn process(&self, spec: &str) -> Result<User, String> {
        let told = |error: AccountError| error.to_string();
        let (name, group) = match spec.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
            None => (spec, None),
        };
        let Login { uid, gid, home, groups } =
            self.0.login(if name.is_empty() { "0" } else { name }).map_err(told)?;
        if spec.is_empty() {
            return Ok(User { uid: 0, gid: 0, groups: vec![0], home });
        }
        if let Some(group) = group {
            let gid = self.0.gid(group).map_err(told)?;
            return Ok(User { uid, gid, groups: vec![gid], home });
        }
        let others = groups.into_iter().filter(|other| *other != gid);
        Ok(User { uid, gid, groups: [gid].into_iter().chain(others).collect(), home })
    }

    /// Who `--chown` names: a number alone is also the group, a name brings its group.
    pub(crate) fn owner(&self, spec: &str) -> Result<(u32, u32), String> {
        let (name, group) = match spec.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (spec, None),
        };
        let (uid, own_gid) = match number(name).map_err(|why| format!("--chown={spec}: {why}"))? {
            Some(uid) => (uid, uid),
            None if name.is_empty() => (0, 0),
            None => {
                let named = self.0.login(name).map(|login| (login.uid, login.gid));
                named.map_err(|_| {
                    format!("invalid user index: --chown={spec}: there is no user {name} in the image's /etc/passwd; add it before, or use its number")
                })?
            }
        };
        let gid = match group {
            None => own_gid,
            Some("") => 0,
            Some(group) => self.0.gid(group).map_err(|_| {
                format!("--chown={spec}: there is no group {group} in the image's /etc/group; add it before, or use its number")
            })?,
        };
        Ok((uid, gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts(accounts::Accounts::new(
            "root:x:0:0:root:/root:/bin/sh\napp:x:100:101::/home/app:/bin/sh\nbroken\n".into(),
            "root:x:0:\napp:x:101:\nextra:x:200:app,other\n".into(),
        ))
    }

    #[test]
    fn processes() {
        let user = |spec: &str| accounts().process(spec).unwrap();
        assert_eq!(
            user("app"),
            User { uid: 100, gid: 101, groups: vec![101, 200], home: Some("/home/app".into()) }
        );
        assert_eq!(
            user("app:extra"),
            User { uid: 100, gid: 200, groups: vec![200], home: Some("/home/app".into()) }
        );
        assert_eq!(user("100").gid, 101);
        assert_eq!(user("7"), User { uid: 7, gid: 0, groups: vec![0], home: None });
        assert_eq!(user("").uid, 0);
        assert!(accounts().process("nobody").unwrap_err().contains("unable to find user nobody"));
    }

    #[test]
    fn owners() {
        let owner = |spec: &str| accounts().owner(spec);
        assert_eq!(owner("app"), Ok((100, 101)));
        assert_eq!(owner("7"), Ok((7, 7)));
        assert_eq!(owner("app:"), Ok((100, 0)));
        assert_eq!(owner(":extra"), Ok((0, 200)));
        assert!(owner("nobody").is_err() && owner("0:nogroup").is_err());
        assert!(owner("2147483648").unwrap_err().contains("must be in range"));
    }
}
