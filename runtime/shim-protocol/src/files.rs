//! The names of the files in a container's run directory.

/// The OCI configuration; written by the engine before `Create`.
pub const CONFIG: &str = "config.json";
/// Where a shim listens for a restarted daemon, as long as its container has not ended.
pub const SOCKET: &str = "shim.sock";
/// What is needed to clean up after a shim that was killed; gone when the container is.
pub const STATE: &str = "state.json";
/// The container's [`ExitRecord`](crate::ExitRecord).
pub const EXIT: &str = "exit.json";
/// What the shim complained about; absent when it had nothing to say.
pub const SHIM_LOG: &str = "shim.log";

/// The file of an exec's [`ExecRecord`](crate::ExecRecord).
pub fn exec_record(exec_id: &str) -> String {
    format!("exec-{exec_id}.json")
}

/// The exec whose record has this file name.
pub fn exec_id_of(file_name: &str) -> Option<&str> {
    file_name.strip_prefix("exec-")?.strip_suffix(".json").filter(|id| valid_exec_id(id))
}

/// Whether this may be an exec's id; it becomes part of a file name.
pub fn valid_exec_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
