//! The accounts of a root: its passwd and group files as text, and what `user[:group]` means by them.

use thiserror::Error;

/// The largest user or group that can be asked for, as docker has it.
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// Why a user or a group cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AccountError {
    /// The passwd file does not have it.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The group file does not have it.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// No id can be that large.
    #[error("uids and gids must be in range 0-{MAX_ID}: {0} is not")]
    OutOfRange(String),
}

/// What is known of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Its number.
    pub uid: u32,
    /// Its group's number; 0 of a number that is no user's.
    pub gid: u32,
    /// Its home directory, if it has one.
    pub home: Option<String>,
    /// The further groups that it is a member of, in the order of the file.
    pub groups: Vec<u32>,
}

/// The two files.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Of these texts; one of a missing file is empty.
    #[must_use]
    pub fn new(passwd: String, group: String) -> Self {
        Self { passwd, group }
    }

    /// Name, uid, gid, home. A line that cannot be read is none.
    fn users(&self) -> impl Iterator<Item = (&str, u32, u32, &str)> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((name, uid, gid, fields.nth(1).unwrap_or_default()))
        })
    }

    /// Name, gid, members.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next()?;
            Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }

    /// A user by name or number. A number need not be anybody's.
    ///
    /// # Errors
    /// A name that nobody has; a number that is none.
    pub fn login(&self, wanted: &str) -> Result<Login, AccountError> {
        let number = number(wanted)?;
        let found = self.users().find(|(name, uid, ..)| number.map_or(*name == wanted, |id| *uid == id));
        let (name, uid, gid, home) = match (found, number) {
            (Some(found), _) => found,
            (None, Some(uid)) => ("", uid, 0, ""),
            (None, None) => return Err(AccountError::NoUser(wanted.to_owned())),
        };
        let member = |list: &str| !name.is_empty() && list.split(',').any(|member| member == name);
        let groups = self.groups().filter(|(.., list)| member(list)).map(|(_, gid, _)| gid).collect();
        Ok(Login { uid, gid, home: Some(home.to_owned()).filter(|home| !home.is_empty()), groups })
    }

    /// A group by name or number.
    ///
    /// # Errors
    /// A name that no group has; a number that is none.
    pub fn gid(&self, wanted: &str) -> Result<u32, AccountError> {
        if let Some(number) = number(wanted)? {
            return Ok(number);
        }
        let found = self.groups().find(|(name, ..)| *name == wanted);
        found.map(|(_, gid, _)| gid).ok_or_else(|| AccountError::NoGroup(wanted.to_owned()))
    }
}

/// Digits are a number, always: an image could have an account of that name which is root's.
///
/// # Errors
/// A number that no user and no group can have.
pub fn number(text: &str) -> Result<Option<u32>, AccountError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= MAX_ID);
    number.map(Some).ok_or_else(|| AccountError::OutOfRange(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::new(
            "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\nhomeless:x:7:7::\n"
                .to_owned(),
            "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\naudio:x:29:app\n".to_owned(),
        )
    }

    #[test]
    fn names_and_numbers() {
        let app = Login { uid: 1000, gid: 1001, home: Some("/home/app".to_owned()), groups: vec![10, 29] };
        assert_eq!(accounts().login("app"), Ok(app.clone()));
        assert_eq!(accounts().login("1000"), Ok(app));
        assert_eq!(accounts().login("homeless").unwrap().home, None);
        assert_eq!(accounts().login("77"), Ok(Login { uid: 77, gid: 0, home: None, groups: Vec::new() }));
        assert_eq!((accounts().gid("audio"), accounts().gid("88")), (Ok(29), Ok(88)));
        assert_eq!(accounts().login("bob"), Err(AccountError::NoUser("bob".to_owned())));
        assert_eq!(accounts().gid("bob"), Err(AccountError::NoGroup("bob".to_owned())));
    }

    /// CVE-2016-3697, CVE-2026-46680: the image has accounts whose names are numbers.
    #[test]
    fn a_number_is_no_name() {
        let passwd = "1000:x:0:0::/root:\n4294967296:x:0:0::/root:\n".to_owned();
        let hostile = Accounts::new(passwd, "1000:x:0:\n".to_owned());
        assert_eq!(hostile.login("1000").unwrap().uid, 1000);
        assert_eq!(hostile.gid("1000"), Ok(1000));
        for out_of_range in ["4294967296", "2147483648"] {
            let refused = AccountError::OutOfRange(out_of_range.to_owned());
            assert_eq!(hostile.login(out_of_range), Err(refused.clone()));
            assert_eq!(hostile.gid(out_of_range), Err(refused));
        }
    }
}
