//! `user[:group]` to numbers, by the rootfs's own passwd and group files.

use std::io;

use crate::rootdir::RootDir;

/// The largest user or group that can be asked for, as docker has it.
const MAX_ID: u32 = i32::MAX.cast_unsigned();
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

/// The files of one root.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    pub(crate) fn read(root: &RootDir) -> io::Result<Self> {
        Ok(Self {
            passwd: root.read_small("etc/passwd", MAX_FILE)?.unwrap_or_default(),
            group: root.read_small("etc/group", MAX_FILE)?.unwrap_or_default(),
        })
    }

    /// Name, uid, gid, home.
    fn users(&self) -> impl Iterator<Item = (&str, u32, u32, &str)> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((name, uid, gid, fields.nth(1).unwrap_or("")))
        })
    }

    /// Name, gid, members.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }

    fn gid(&self, group: &str) -> Result<u32, String> {
        if let Some(gid) = number(group)? {
            return Ok(gid);
        }
        let named = self.groups().find(|(name, ..)| *name == group);
        named
            .map(|(_, gid, _)| gid)
            .ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))
    }

    /// Who a process of `USER` runs as. Its own group is always one of its supplementary groups, too.
    pub(crate) fn process(&self, spec: &str) -> Result<User, String> {
        if spec.is_empty() {
            let home = self.users().find(|(_, uid, ..)| *uid == 0).map(|(.., home)| home.to_owned());
            return Ok(User { uid: 0, gid: 0, groups: vec![0], home: home.filter(|home| !home.is_empty()) });
        }
        let (name, group) = match spec.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
            None => (spec, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = number(name)?;
        let known = self.users().find(|(login, uid, ..)| number.map_or(*login == name, |id| *uid == id));
        let (uid, gid, home, login) = match (known, number) {
            (Some((login, uid, gid, home)), _) => (uid, gid, Some(home.to_owned()), Some(login)),
            (None, Some(uid)) => (uid, 0, None, None),
            (None, None) => {
                return Err(format!("unable to find user {name}: no matching entries in passwd file"));
            }
        };
        let home = home.filter(|home| !home.is_empty());
        if let Some(group) = group {
            let gid = self.gid(group)?;
            return Ok(User { uid, gid, groups: vec![gid], home });
        }
        let member = |members: &str| login.is_some_and(|login| members.split(',').any(|m| m == login));
        let others = self.groups().filter(|(_, other, members)| *other != gid && member(members));
        let groups = [gid].into_iter().chain(others.map(|(_, gid, _)| gid)).collect();
        Ok(User { uid, gid, groups, home })
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
                let named = self.users().find(|(login, ..)| *login == name);
                named.map(|(_, uid, gid, _)| (uid, gid)).ok_or_else(|| {
                    format!("invalid user index: --chown={spec}: there is no user {name} in the image's /etc/passwd; add it before, or use its number")
                })?
            }
        };
        let gid = match group {
            None => own_gid,
            Some("") => 0,
            Some(group) => self.gid(group).map_err(|_| {
                format!("--chown={spec}: there is no group {group} in the image's /etc/group; add it before, or use its number")
            })?,
        };
        Ok((uid, gid))
    }
}

/// Digits are a number, always: an image could have an account of that name which is root's.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= MAX_ID);
    number.map(Some).ok_or_else(|| format!("uids and gids must be in range 0-{MAX_ID}: {text} is not"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:100:101::/home/app:/bin/sh\nbroken\n".into(),
            group: "root:x:0:\napp:x:101:\nextra:x:200:app,other\n".into(),
        }
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
    }

    /// CVE-2016-3697, CVE-2026-46680: the image has accounts whose names are numbers.
    #[test]
    fn a_number_is_no_name() {
        let passwd = "1000:x:0:0::/root:\n4294967296:x:0:0::/root:\n".into();
        let hostile = Accounts { passwd, group: "1000:x:0:\n".into() };
        let user = hostile.process("1000:1000").unwrap();
        assert_eq!((user.uid, user.gid), (1000, 1000));
        assert_eq!(hostile.process("1000").unwrap().uid, 1000);
        assert_eq!(hostile.owner("1000:1000"), Ok((1000, 1000)));
        for out_of_range in ["4294967296", "2147483648", "0:4294967296"] {
            assert!(hostile.process(out_of_range).is_err(), "{out_of_range}");
            assert!(hostile.owner(out_of_range).is_err(), "{out_of_range}");
        }
    }
}
