//! firewalld, which owns its table and is asked over D-Bus (firewalld.dbus(5)).
//!
//! Its rules reject what is forwarded for links that it has no zone for. The bridges are put into its zone `trusted`, which
//! accepts; what is not published stays closed by our own table, whose drop is final. It is done in what firewalld calls
//! its runtime: nothing is written to its files, and after its reload, which forgets the links, it is done again.

use std::io;
use std::time::Duration;

use berth_dbus::{CallError, Connection, Target, Value, system_bus};

/// It reloads within seconds and answers nobody meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const ZONE: &str = "trusted";
const ZONES: Target<'static> = Target {
    destination: "org.fedoraproject.FirewallD1",
    path: "/org/fedoraproject/FirewallD1",
    interface: "org.fedoraproject.FirewallD1.zone",
};

/// Puts links into the zone, and takes others out of it.
pub(super) fn trust<'a>(
    new: impl Iterator<Item = &'a str>,
    gone: impl Iterator<Item = &'a str>,
) -> Result<(), CallError> {
    let mut bus = Connection::open(&system_bus(), PATIENCE)?;
    let mut call = |member: &str, link: &str, settled: &str| {
        match bus.call(ZONES, member, &[Value::text(ZONE), Value::text(link)]) {
            // It is so already.
            Err(CallError::Refused { message, .. }) if message.starts_with(settled) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    };
    for link in gone {
        call("removeInterface", link, "UNKNOWN_INTERFACE")?;
    }
    new.into_iter().try_for_each(|link| call("addInterface", link, "ALREADY_ENABLED"))
}

/// Whether it was because nobody is there: a table that looks like firewalld's, and no firewalld.
pub(super) fn is_absent(error: &CallError) -> bool {
    match error {
        CallError::Exchange(error) => {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        }
        CallError::Refused { name, .. } => {
            name.ends_with(".NameHasNoOwner") || name.ends_with(".ServiceUnknown")
        }
        _ => false,
    }
}
