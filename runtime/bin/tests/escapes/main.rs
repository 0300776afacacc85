//! The published escapes from containers, tried on real ones. Each must fail. Needs root and /bin/busybox (static).
//!
//! The attempts are tested by a runtime that is vulnerable to them, by hand:
//! `BERTH_TEST_RUNTIME=/usr/sbin/runc cargo test -p berth-runtime --test escapes`.
//!
//! | published | what | test |
//! |---|---|---|
//! | CVE-2016-9962 (runc) | trace an exec, take its descriptors | `program::an_exec_cannot_be_traced_or_robbed` |
//! | CVE-2019-5736 (runc, LXC) | overwrite the runtime by /proc/self/exe | `program::the_runtime_cannot_be_overwritten` |
//! | CVE-2024-21626 (runc) | leave by a leaked descriptor | `program::leaked_descriptors_lead_nowhere`, `program::an_exec_leaks_nothing` |
//! | CVE-2019-16884, CVE-2023-28642 (runc) | labels written to a false /proc | `procfs::nothing_covers_proc`, `procfs::labels_go_to_the_kernel_only` |
//! | CVE-2019-19921, CVE-2023-27561 (runc), CVE-2025-54867 (youki) | /proc or /sys is a link | `procfs::proc_and_sys_must_be_directories` |
//! | CVE-2025-52881 (runc), CVE-2025-62596 (youki) | sysctls written to a false /proc | `procfs::parameters_go_to_the_kernel_only` |
//! | CVE-2025-31133 (runc), CVE-2025-62161 (youki) | /dev/null is a link, masks show what it points to | `procfs::masks_need_the_real_null`, `procfs::masks_win_the_race` |
//! | CVE-2025-52565 (runc) | /dev/console is a link | `procfs::the_console_is_no_link` |
//! | CVE-2021-30465 (runc) | a mount's place is exchanged for a link | `paths::a_swapped_mount_point_stays_inside` |
//! | runc to date | a link of the image is the source of a mount | `paths::a_source_in_the_root_stays_inside` |
//! | runc to 1.0.0-rc9 | with --no-pivot, a new procfs without masks | `procfs::no_pivot_leaves_no_bare_proc` |
//! | CVE-2024-45310 (runc), CVE-2019-18837 (crun) | files and directories made on the host | `paths::nothing_is_made_on_the_host` |
//! | CVE-2025-24965 (crun) | a handler writes through a link of the image | `paths::no_handler_writes_into_the_image` |
//! | CVE-2022-29162 (runc), CVE-2022-27650 (crun), CVE-2022-24769 (moby), CVE-2025-27612 (youki) | inheritable capabilities nobody asked for | `privileges::nothing_is_inheritable_unasked` |
//! | CVE-2023-25809 (runc) | a read-only cgroup mount is writable | `privileges::a_read_only_cgroup_mount_is_one` |
//! | CVE-2021-43784 (runc) | too many id mappings overflow into others | `privileges::id_mappings_are_exact` |
//! | CVE-2026-41579 (runc), CVE-2026-47766 (crun) | /dev is a link | `devices::nothing_is_made_through_a_link` |
//! | CVE-2026-88264 (crun) | /dev/console is a link | `procfs::the_console_is_no_link` |
//! | CVE-2026-88265 (crun) | /dev/null is a link, and becomes a standard stream | `devices::streams_are_the_real_null` |
//! | runc to date | a device is bound over what a link leads to | `devices::a_bound_device_follows_no_link` |
//! | CVE-2016-3697 (runc), CVE-2026-30892 (crun), CVE-2026-46680 (containerd) | a user whose name is a number, a number that is none | `privileges::a_number_is_no_user_name` |

mod devices;
#[allow(dead_code, reason = "the contract's suite uses all of it")]
#[path = "../contract/harness.rs"]
mod harness;
mod intruder;
mod paths;
mod privileges;
mod procfs;
mod program;
mod swap;
