//! The unmodified docker CLI against berthd.

use berth_tests::matrix;

matrix! { berth_tests::cli::Frontend::Docker =>
    images::{
        version_and_info, filters, import_from_url, disk_usage, search, import_list_inspect_remove, tag_and_untag, remove_in_use_is_refused, save_and_load,
        push_and_pull, pull_of_a_missing_image_fails, run_pulls_what_is_missing, history,
        pull_all_tags, one_platform, global_flags,
    }
    run::{
        foreground_streams_and_exit_codes, failures_to_start, signals_in_exit_codes, standard_input, large_output,
        terminal, process_options, detached, confinement, signs_of_a_container,
    }
    lifecycle::{
        ps, create_start_stop_remove, stop_kills_in_the_end, stop_as_configured, health, health_at_the_start,
        kill, logs_follow, pause_and_unpause,
        names_and_prefixes, restart_policy, attach, events, create_attached,
    }
    exec::{ plain, failures, standard_input, terminal, detached, confinement }
    build::{
        all_instructions, cache, failing_step, syntax_error, options, from_standard_input, hostile_links, names,
    }
    storage::{
        bind, named_volume, anonymous_volume, tmpfs, copy, changes_commit_export, image_mount, volume_options,
        volume_subpath, id_mapped, mount_options,
    }
    options::{ all, files, init, links, shared_namespaces, update_lifts_limits, api_socket, every_option_is_here }
    limits::{ memory, cpu, pids, update, stats_and_top }
    network::{
        published_port, between_containers, modes, user_network, hosts_and_resolver, names, connect_and_disconnect,
        create_flags, dual_stack, port_ranges, isolation, fixed_addresses,
    }
}
