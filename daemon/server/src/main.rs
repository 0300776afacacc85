//! `berthd`: the daemon. Listeners, locks, signals; everything else is the engine's.
//!
//! ```text
//! lock root and run root ─ bind sockets ─ start engine (recovers) ─ serve ─ tell readiness
//!   SIGTERM, SIGINT, POST /berth/shutdown ─ serve no more ─ end engine ─ remove sockets
//! ```
//!
//! Containers belong to their shims: they go on when the daemon ends, unless it was told to stop them.

mod args;
mod file;
mod listen;
mod lock;
mod ready;
mod subids;
mod syslog;
mod tls;

use std::{
    os::{fd::AsFd as _, unix::net::UnixListener},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use berth_cri::CriServer;
use berth_engine::{CniDirs, Engine, EngineConfig};
use berth_http::{Server, ShutdownMode};
use berth_nri::{NriServer, Timeouts};
use clap::Parser as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    args::Args,
    file::Further,
    listen::{Bound, SocketFile, Tls},
    lock::Locks,
};

/// Threads that drive connections and timers; the work itself waits for the kernel.
const WORKERS: usize = 2;

/// How long an idle thread for blocking calls is kept.
const IDLE_THREAD: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Other processes of the same program, told apart by their first argument, while there is one thread.
    match std::env::args().nth(1).as_deref() {
        Some(berth_engine::DNS_ROLE) => return resolve(),
        Some(berth_engine::SYSLOG_ROLE) => return send_log(),
        _ => {}
    }
    let mut args = Args::parse();
    let further = file::complete(&mut args);
    init_tracing(args.log_level());
    match further.and_then(|further| run(&args, &further)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `berthd dns`, started by the engine: serves 127.0.0.11 of all containers until nobody needs it.
fn resolve() -> ExitCode {
    init_tracing("warn");
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    let served = control.context("taking over the control socket").and_then(|control| {
        nix::sys::prctl::set_name(c"berth-dns").context("naming the process")?;
        berth_dns::serve(control).context("serving names")
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd dns: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `berthd syslog-tls JSON`, started by a container's shim.
fn send_log() -> ExitCode {
    let wanted = std::env::args().nth(2).unwrap_or_default();
    let wanted = serde_json::from_str(&wanted).context("what is to be sent, and where, is no JSON");
    match wanted.and_then(|wanted| syslog::run(&wanted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd syslog-tls: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init_tracing(level: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

fn run(args: &Args, further: &Further) -> anyhow::Result<()> {
    let tls = Tls { acceptor: tls::acceptor(args)?, verifies: args.tlsverify };
    let _locks = Locks::take(&args.root, &args.run_root, &args.pidfile())?;
    // Bound before there are threads: the umask is the whole process's.
    let bound: Vec<Bound> = args
        .hosts()
        .iter()
        .map(|host| listen::bind(host, args.group.as_deref(), &tls))
        .collect::<anyhow::Result<_>>()?;
    let cri = listen::bind_private(&args.run_root.join("cri.sock"))?;
    let nri = args.nri_socket.clone().unwrap_or_else(|| args.run_root.join("nri.sock"));
    let nri = listen::bind_private(&nri)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_keep_alive(IDLE_THREAD)
        .thread_name("berthd")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(serve(args, further, bound, (cri, nri)));
    // What still blocks belongs to streams whose clients are gone.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// A socket for root alone.
type Private = (UnixListener, SocketFile);

async fn serve(
    args: &Args,
    further: &Further,
    bound: Vec<Bound>,
    (cri, nri): (Private, Private),
) -> anyhow::Result<()> {
    // From here on signals wait for us, so that a start under way is not cut.
    let mut signals = Signals::new().context("waiting for signals")?;
    let mut config = EngineConfig {
        debug: args.log_level().contains("debug") || args.log_level().contains("trace"),
        // The running program itself, even when its file has been replaced by an upgrade meanwhile.
        dns_program: "/proc/self/exe".into(),
        // Started by shims, whose own program is another one.
        relay_program: std::env::current_exe().context("finding the path of berthd")?,
        insecure_registries: args.insecure_registry.clone(),
        image_cap: args.image_cap,
        build_cache_cap: args.build_cache_cap,
        labels: args.labels.clone(),
        dns: args.dns.clone(),
        init: args.init,
        userns_remap: args.userns_remap.as_deref().map(subids::range).transpose()?,
        runtimes: further.runtimes.clone(),
        cgroup_driver: further.cgroup_driver,
        cgroup_parent: args.cgroup_parent.clone(),
        ..EngineConfig::new(&args.root, &args.run_root, args.shim()?)
    };
    config.pinned_images.clone_from(&args.cri_pinned_image);
    config.block_io_classes.clone_from(&args.cri_blockio_classes);
    config.restore_images = args.cri_restore_images;
    config.cni = CniDirs {
        configurations: args.cni_conf_dir.clone(),
        plugins: if args.cni_bin_dir.is_empty() { config.cni.plugins } else { args.cni_bin_dir.clone() },
    };
    let defaults = &mut config.defaults;
    if let Some(runtime) = &args.default_runtime {
        defaults.runtime.clone_from(runtime);
    }
    if let Some(driver) = &args.log_driver {
        defaults.log_driver.clone_from(driver);
    }
    defaults.log_options.clone_from(&further.log_opts);
    defaults.shm_size = further.shm_size.unwrap_or(defaults.shm_size);
    config.set_storage_options(args.storage_opts.iter().map(String::as_str)).context("--storage-opt")?;
    if !args.cdi_spec_dir.is_empty() {
        config.cdi.0.clone_from(&args.cdi_spec_dir);
    }
    if !args.registry_dir.is_empty() {
        config.registry_dirs.clone_from(&args.registry_dir);
    }
    let engine = Engine::start(config).await.context("starting the engine")?;
    let (server, mut asked) = Server::new(engine.clone());
    let mut sockets = Vec::new();
    for bound in bound {
        tracing::info!(host = %bound.host, "listening");
        let (listener, socket) = bound.into_listener()?;
        server.listen(listener);
        sockets.push(socket);
    }
    // Plugins before pods: what comes first through the CRI is theirs as well.
    let (listener, nri_socket) = nri;
    let listener = asynchronous(listener).context("listening for the NRI")?;
    let nri = NriServer::listen(&engine, listener, Timeouts::default());
    let (listener, cri_socket) = cri;
    let listener = asynchronous(listener).context("listening for the CRI")?;
    let cri = CriServer::new(engine.clone()).listen(listener);
    if let Some(fd) = args.ready_fd {
        ready::tell(fd)?;
    }
    let mode = signals.or_asked(&mut asked).await;
    tracing::info!(?mode, "ending");
    tokio::join!(server.stop(), cri.stop(), nri.stop());
    drop((sockets, cri_socket, nri_socket));
    let all = mode == ShutdownMode::StopContainers;
    let ended = engine.shutdown(all).await.context("ending the engine");
    if all {
        prune_cgroups();
    }
    ended
}

fn asynchronous(listener: UnixListener) -> std::io::Result<tokio::net::UnixListener> {
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// The cgroups that build steps and containers are below unless they ask for another, children first.
const CGROUP_PARENTS: [&str; 2] = ["/berth/builds", "/berth"];

/// Takes the empty parent cgroups away; one that another daemon uses stays.
fn prune_cgroups() {
    let pruned = berth_cgroup::detect().and_then(|layout| {
        CGROUP_PARENTS.iter().try_for_each(|path| berth_cgroup::prune(&layout, Path::new(path)).map(drop))
    });
    if let Err(error) = pruned {
        tracing::warn!(%error, "the parent cgroup stays behind");
    }
}

/// The signals that end the daemon. SIGHUP is taken and forgotten: there is nothing to read anew yet.
struct Signals {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal or for a client that asks for the end.
    async fn or_asked(&mut self, asked: &mut mpsc::Receiver<ShutdownMode>) -> ShutdownMode {
        loop {
            tokio::select! {
                _ = self.term.recv() => return ShutdownMode::KeepContainers,
                _ = self.interrupt.recv() => return ShutdownMode::KeepContainers,
                _ = self.hangup.recv() => tracing::info!("SIGHUP ignored"),
                Some(mode) = asked.recv() => return mode,
            }
        }
    }
}
