//! How the C library looks names up, in a program that is linked statically.
//!
//! nsswitch.conf(5) may name services that are loaded as libraries. Into a static program they bring a second C library, which
//! is only sound if both are of the same build; what is built in (files and DNS) needs none.

/// Looks hosts up in /etc/hosts and by DNS, and users in /etc/passwd, whatever nsswitch.conf names besides. In a program that
/// is linked dynamically everything stays as it is. Call it before the first look-up.
pub fn only_what_is_built_in() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files")] {
        unsafe extern "C" {
            /// <nss.h>; -1 if the database or a service is not known by this name.
            fn __nss_configure_lookup(
                database: *const libc::c_char,
                services: *const libc::c_char,
            ) -> libc::c_int;
        }
        // SAFETY: both are strings with an end, and the C library copies what it needs of them.
        let configured = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        debug_assert_eq!(configured, 0, "{database:?}");
    }
}
