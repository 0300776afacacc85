//! The parent's side of the protocol against a child that says anything: for the fuzz target and the property below.

use std::os::fd::{AsFd, OwnedFd};

use berth_spec::{HookPlans, IdMaps};
use berth_sys::{Pid, pidfd, socket};
use nix::sys::socket::MsgFlags;

use crate::hooks::ContainerState;
use crate::parent::{self, Process, Serving};
use crate::protocol::{self, ParentLink};

/// More than a child ever sends, and less than a socket's buffer holds.
const MAX_MESSAGES: usize = 32;
const MAX_LENGTH: usize = 4096;

/// Serves a child that sends these messages, each with a descriptor or without, and closes its end. Returns when the
/// parent has given up or is content; it must do either.
pub fn serve(messages: &[(Vec<u8>, bool)]) {
    let Ok(pidfd) = pidfd::open(Pid::this()) else { return };
    // Nobody waits for itself, so that this child is always one that somebody else has reaped.
    let child = Process { pid: Pid::this(), pidfd };
    for until_exec in [false, true] {
        if let Some(link) = spoken(messages) {
            let mut serving = Serving {
                link: &link,
                steps: &[],
                id_maps: &IdMaps::default(),
                init: &[],
                hooks: Some(&HookPlans::default()),
                console: None,
                notify: None,
                observed: None,
                state: state(),
                trace: None,
            };
            // Any answer is right, as long as it is one.
            serving.run(&child, until_exec).ok();
        }
    }
    if let Some(link) = spoken(messages) {
        parent::await_handover(&link, &child, None, None).ok();
    }
}

/// A link over which the child has said all this and gone.
fn spoken(messages: &[(Vec<u8>, bool)]) -> Option<ParentLink> {
    let (parent, child) = protocol::link().ok()?;
    let null: OwnedFd = std::fs::File::open("/dev/null").ok()?.into();
    for (bytes, with_descriptor) in messages.iter().take(MAX_MESSAGES) {
        let fds: &[_] = if *with_descriptor { &[null.as_fd()] } else { &[] };
        let bytes = &bytes[..bytes.len().min(MAX_LENGTH)];
        socket::send_with_fds(child.socket(), bytes, fds, MsgFlags::MSG_DONTWAIT).ok()?;
    }
    Some(parent)
}

fn state() -> ContainerState {
    ContainerState {
        oci_version: "1.2.0".into(),
        id: "id".into(),
        status: "creating",
        pid: 0,
        bundle: "/".into(),
        annotations: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(vec![
            r#"{"Forked":7}"#,
            r#"{"Forked":-1}"#,
            r#""NamespacesReady""#,
            r#"{"MapIds":3}"#,
            r#""RunHooks""#,
            r#""Console""#,
            r#""Listener""#,
            r#"{"Warning":"w"}"#,
            r#""Ready""#,
            r#"{"Failure":{"step":"s","message":"m","errno":2,"kind":"other"}}"#,
            r#"{"Failure":{"step":"s","message":"m","errno":-99999,"kind":"not_found","hint":"h"}}"#,
        ]);
        prop_oneof![
            3 => known.prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..200),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_parent_never_panics_nor_hangs(
            messages in prop::collection::vec((message(), any::<bool>()), 0..12)
        ) {
            serve(&messages);
        }
    }
}
