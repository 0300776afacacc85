//! Builds one case of the builder's conformance corpus with a store of its own, for the corpus's `build-diff.py`:
//!
//! ```text
//! build_case init STORE LAYOUT.tar           makes a store with the base images
//! build_case build STORE OUT.tar DOCKERFILE CONTEXT [--target T] [--build-arg K=V] [--secret id=I,src=F] [--no-cache]
//! ```

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use berth_builder::{
    BoxFuture, BuildEvent, BuildIo, BuildRequest, Builder, BuilderDirs, Context, DeviceError, Devices,
    DockerfileSource, ImageResolver, NetworkMode, ResolveError, Sandbox, SandboxError, Sandboxes, Secret,
};
use berth_oci::{Digest, Platform, Reference};
use berth_runtime_client::ShimSpawner;
use berth_store::Store;
use tokio_util::sync::CancellationToken;

type AnyError = Box<dyn std::error::Error>;

struct Resolver(Store);

impl ImageResolver for Resolver {
    fn resolve<'a>(
        &'a self,
        reference: &'a Reference,
        _platform: Option<&'a Platform>,
        _pull: bool,
    ) -> BoxFuture<'a, Result<Digest, ResolveError>> {
        let found = self.0.images().resolve(&reference.familiar()).map(|image| image.id);
        Box::pin(std::future::ready(found.map_err(|e| ResolveError { message: e.to_string() })))
    }
}

/// The cases ask for none.
struct NoDevices;

impl Devices for NoDevices {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn inject(&self, names: &[String], _: &mut oci_spec::runtime::Spec) -> Result<(), DeviceError> {
        Err(DeviceError { message: format!("no device {}", names.join(", ")) })
    }
}

/// The host's network, or none at all.
struct Network(Option<OwnedFd>);

struct Networks;

impl Sandboxes for Networks {
    fn acquire(&self, mode: &NetworkMode) -> Result<Box<dyn Sandbox>, SandboxError> {
        let none = || -> Result<OwnedFd, AnyError> {
            let made = std::thread::spawn(|| -> std::io::Result<OwnedFd> {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(File::open("/proc/thread-self/ns/net")?.into())
            });
            Ok(made.join().map_err(|_| "the thread panicked")??)
        };
        match mode {
            NetworkMode::None => {
                let netns = none().map_err(|e| SandboxError { message: e.to_string() })?;
                Ok(Box::new(Network(Some(netns))))
            }
            _ => Ok(Box::new(Network(None))),
        }
    }
}

impl Sandbox for Network {
    fn netns(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(OwnedFd::as_fd)
    }

    fn hosts(&self) -> String {
        "127.0.0.1\tlocalhost\n".into()
    }

    fn resolv_conf(&self) -> String {
        String::new()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("init") if args.len() == 3 => init(Path::new(&args[1]), Path::new(&args[2])),
        Some("build") if args.len() >= 5 => build(&args[1..]),
        _ => {
            Err("usage: build_case init STORE LAYOUT.tar | build STORE OUT.tar DOCKERFILE CONTEXT [FLAGS]"
                .into())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn init(store: &Path, layout: &Path) -> Result<(), AnyError> {
    let store = Store::open(store.join("store"))?;
    for loaded in store.load(File::open(layout)?, &|_| {})? {
        println!("{} {:?}", loaded.id, loaded.references);
    }
    Ok(())
}

fn build(args: &[String]) -> Result<(), AnyError> {
    let root = PathBuf::from(&args[0]);
    let store = Store::open(root.join("store"))?;
    let mut request = BuildRequest::new(Context::Directory(PathBuf::from(&args[3])));
    let dockerfile = Path::new(&args[2]);
    request.dockerfile = match dockerfile.strip_prefix(&args[3]) {
        Ok(inside) => DockerfileSource::Path(inside.to_string_lossy().into_owned()),
        Err(_) => DockerfileSource::Inline(std::fs::read(dockerfile)?),
    };
    flags(&mut request, &args[4..])?;
    let shim = std::env::var_os("BERTH_SHIM").map_or_else(|| PathBuf::from("berth-shim"), PathBuf::from);
    let dirs = BuilderDirs { builds: root.join("builds"), run: root.join("run"), cache_limit: None };
    let builder =
        Builder::new(store.clone(), ShimSpawner::new(shim), Arc::new(Networks), Arc::new(NoDevices), dirs);
    let io = BuildIo {
        resolver: Arc::new(Resolver(store.clone())),
        events: Arc::new(|event: berth_builder::Event| match event.what {
            BuildEvent::Output { bytes, .. } => {
                std::io::stdout().write_all(&bytes).ok();
            }
            event => println!("{event:?}"),
        }),
        cancel: CancellationToken::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let built = runtime.block_on(builder.build(request, io))?;
    store.save(&[built.id.as_str()], File::create(&args[1])?)?;
    Ok(())
}

fn flags(request: &mut BuildRequest, args: &[String]) -> Result<(), AnyError> {
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        if flag == "--no-cache" {
            request.no_cache = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--target" => request.target = Some(value.clone()),
            "--build-arg" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                request.build_args.insert(name.to_owned(), Some(value.to_owned()));
            }
            "--secret" => {
                let field = |name: &str| value.split(',').find_map(|f| f.strip_prefix(name));
                let (id, file) = (field("id=").unwrap_or(""), field("src=").unwrap_or(""));
                request.secrets.insert(id.to_owned(), Secret(std::fs::read(file)?));
            }
            "--ssh" => {
                let (id, socket) = value.split_once('=').ok_or("--ssh ID=SOCKET")?;
                request.ssh.insert(id.to_owned(), PathBuf::from(socket));
            }
            "--allow" => match value.as_str() {
                "security.insecure" => request.allow.insecure = true,
                "network.host" => request.allow.host_network = true,
                other => return Err(format!("--allow {other}").into()),
            },
            "--build-context" => {
                let (name, dir) = value.split_once('=').ok_or("--build-context NAME=DIR")?;
                request.named_contexts.insert(name.to_owned(), Context::Directory(PathBuf::from(dir)));
            }
            other => return Err(format!("{other} is not supported yet").into()),
        }
    }
    Ok(())
}
