//! The ids of containers' users: what `userns-remap` means (subuid(5), subgid(5)).

use anyhow::{Context as _, bail};
use berth_engine::{IdRange, UserRange};

/// The user that "default" stands for, as in docker.
const DEFAULT: &str = "dockremap";

/// Ids below are the system's.
const LOWEST: u32 = 1000;

/// `default`, `USER[:GROUP]` with names or numbers, or `FIRST+COUNT`.
pub(crate) fn range(text: &str) -> anyhow::Result<UserRange> {
    let of = || -> anyhow::Result<UserRange> {
        if let Some((first, count)) = text.split_once('+') {
            let range = IdRange { first: first.parse()?, count: count.parse()? };
            return Ok(UserRange { users: range, groups: range });
        }
        let text = if text == "default" { DEFAULT } else { text };
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        Ok(UserRange { users: listed("/etc/subuid", user)?, groups: listed("/etc/subgid", group)? })
    };
    let range = of().and_then(|range| {
        for ids in [range.users, range.groups] {
            if ids.first < LOWEST || ids.count == 0 || ids.first.checked_add(ids.count).is_none() {
                bail!("{} ids from {} on cannot be containers' own", ids.count, ids.first);
            }
        }
        Ok(range)
    });
    range.with_context(|| format!("userns-remap {text:?}"))
}

fn listed(file: &str, name: &str) -> anyhow::Result<IdRange> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    find(&text, name)
        .with_context(|| format!("{file} gives no ids to {name:?}: add a line such as {name}:100000:65536"))
}

/// The first of a user's ranges, `name:first:count`.
fn find(text: &str, name: &str) -> Option<IdRange> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let (Some(whose), Some(first), Some(count), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return None;
        };
        (whose == name).then_some(IdRange { first: first.parse().ok()?, count: count.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_subuid() {
        let text = "# comment\nweb:1:2:3\nweb:100000:65536\nweb:300000:1\n1000:200000:10\n";
        assert_eq!(find(text, "web"), Some(IdRange { first: 100_000, count: 65_536 }));
        assert_eq!(find(text, "1000"), Some(IdRange { first: 200_000, count: 10 }));
        assert_eq!(find(text, "nobody"), None);
    }

    #[test]
    fn ranges() {
        let ids = IdRange { first: 100_000, count: 65_536 };
        assert_eq!(range("100000+65536").unwrap(), UserRange { users: ids, groups: ids });
        for bad in ["0+10", "1000+0", "4294967295+2", "x+1", "no-such-user-of-anybody"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
