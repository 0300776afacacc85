//! Socket activation (sd_listen_fds(3)): descriptors that were passed to us are the container's.

use berth_spec::oci;

/// How many descriptors from 3 on came with us; 0 unless they are meant for this process.
pub(crate) fn inherited() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// Tells the process of them: it finds itself as pid 1, as runc tells it too.
pub(crate) fn announce(process: &mut oci::Process) {
    let count = inherited();
    if count > 0 {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(env));
    }
}
