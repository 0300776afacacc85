//! Session keyrings: `keyctl(2)`.

use std::ffi::CString;

use nix::errno::Errno;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
const KEYCTL_SETPERM: libc::c_long = 5;

/// View, read, write, search, link, setattr for the possessor; view, read, search for the owner's user id.
const PERMISSIONS: libc::c_long = 0x3f0b_0000;

/// Gives this process the session keyring of this name, a new one if there is none that it may use, so that it cannot
/// see the keys of whoever started it.
///
/// # Errors
/// `ENOSYS` on kernels without key management, `EDQUOT` past the quota; see `keyctl(2)`.
pub fn join_session(name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `name` is a terminated string that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let id = Errno::result(ret)?;
    // SAFETY: three integers.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, id, PERMISSIONS) };
    match Errno::result(ret) {
        // It exists already, and another user made it: they have set its permissions.
        Err(Errno::EACCES) => Ok(()),
        other => other.map(drop),
    }
}
