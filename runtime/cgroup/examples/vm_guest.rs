//! The part of the cgroup v2 suite that runs inside the virtual machine (see `tests/vm` of the repository): real limits on
//! real processes. Each case prints `ok NAME` or `not ok NAME: why`.
//!
//! The program is also its own victim: called with a role as its first argument it waits for one line on standard input
//! (by then it has been moved into the cgroup) and plays that role.

use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use berth_cgroup::{Cgroup, FreezerState, Layout, detect, prune};
use berth_spec::oci::LinuxResources;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

type Outcome = Result<(), String>;

const MIB: usize = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(role) = arguments.get(1) {
        std::process::exit(play(role, arguments.get(2).map_or("", String::as_str)));
    }
    type Case = fn() -> Outcome;
    let cases: [(&str, Case); 22] = [
        ("cgroup2 is the only hierarchy", only_v2),
        ("memory limit kills a hog with 137", memory_kill),
        ("memory below the limit is left alone", memory_fits),
        ("cpu.max throttles to the quota", cpu_quota),
        ("cpu.weight from shares", cpu_weight),
        ("cpuset keeps to its processor", cpuset),
        ("pids.max stops a fork bomb", pids),
        ("freezer pauses and resumes", freezer),
        ("device program refuses and permits", devices),
        ("cgroup.kill ends a whole subtree", kill_tree),
        ("unified keys are written verbatim", unified),
        ("controllers are delegated, nobody is moved", delegation),
        ("a child is born inside by clone3", born_inside),
        ("limits change on a running group", update),
        ("the default seccomp profile holds", seccomp),
        ("pressure is counted", pressure),
        ("huge pages end at their limit", huge_pages),
        ("block devices are throttled and counted", block_io),
        ("a group is handed to a user", handed_over),
        ("a child is born beside init", born_beside),
        ("a limit of one process waits for its turn", one_process),
        ("the shared parent goes when it is empty", parent),
    ];
    for (name, case) in cases {
        match case() {
            Ok(()) => println!("ok {name}"),
            Err(why) => println!("not ok {name}: {}", why.replace('\n', " ")),
        }
    }
}

fn play(role: &str, argument: &str) -> i32 {
    std::io::stdin().lock().read_line(&mut String::new()).ok();
    match role {
        "hog" => {
            let size = argument.parse::<usize>().unwrap_or(0) * MIB;
            let mut memory = vec![0u8; size];
            memory.iter_mut().step_by(4096).for_each(|page| *page = 1);
            std::hint::black_box(&memory);
            0
        }
        "spin" => {
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            0
        }
        "sleep" => {
            sleep(Duration::from_secs(60));
            0
        }
        "fork" => {
            let mut children = Vec::new();
            while children.len() < 100 {
                match Command::new("/proc/self/exe").args(["sleep"]).stdin(Stdio::piped()).spawn() {
                    Ok(child) => children.push(child),
                    Err(_) => break,
                }
            }
            for child in &mut children {
                child.kill().ok();
                child.wait().ok();
            }
            i32::try_from(children.len()).unwrap_or(255)
        }
        "huge" => huge(argument.parse().unwrap_or(0)).map_or_else(
            |why| {
                println!("# {why}");
                1
            },
            |()| 0,
        ),
        "write" => {
            use std::os::unix::fs::OpenOptionsExt;
            // What is written back later may be counted elsewhere.
            let file = std::fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_SYNC).open(argument);
            file.and_then(|mut file| file.write_all(&vec![1; MIB])).map_or(1, |()| 0)
        }
        "mkdir" => std::fs::create_dir(argument).map_or(1, |()| 0),
        "open" => {
            std::fs::File::open(argument).map_or_else(|error| error.raw_os_error().unwrap_or(255), |_| 0)
        }
        "seccomp" => confined().map_or_else(
            |why| {
                println!("# {why}");
                1
            },
            |()| 0,
        ),
        _ => 255,
    }
}

/// Puts itself under Docker's default profile and tries what it allows and what it refuses.
fn confined() -> Outcome {
    use nix::errno::Errno;
    let arch = berth_spec::seccomp::native_arch();
    let profile = berth_spec::defaults::docker_seccomp(&berth_spec::defaults::DEFAULT_CAPABILITIES, arch);
    let program = berth_spec::seccomp::compile(&profile, arch).map_err(text)?;
    let filter: Vec<_> = program
        .filter
        .iter()
        .map(|i| berth_sys::seccomp::SockFilter { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
        .collect();
    berth_sys::seccomp::set_no_new_privs().map_err(text)?;
    berth_sys::seccomp::load(&filter, program.flags).map_err(|error| format!("load: {error}"))?;
    let refused = [
        ("unshare", nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)),
        ("sethostname", nix::unistd::sethostname("x")),
        ("umount", nix::mount::umount("/tmp")),
    ];
    for (name, result) in refused {
        ensure(result == Err(Errno::EPERM), || format!("{name}: {result:?} instead of EPERM"))?;
    }
    // clone3 answers ENOSYS, so the C library falls back to clone.
    std::thread::spawn(|| ()).join().map_err(|_| "no thread".to_owned())?;
    let child = Command::new("/bin/busybox").arg("true").status().map_err(text)?;
    ensure(child.success(), || format!("a child ended with {child}"))
}

/// A cgroup with processes in it; all gone at the end.
struct Scene {
    group: Option<Cgroup>,
    children: Vec<Child>,
}

impl Scene {
    fn new(name: &str, limits: &str) -> Result<Self, String> {
        let layout = detect().map_err(text)?;
        let resources: LinuxResources = serde_json::from_str(limits).map_err(text)?;
        let group = Cgroup::create(&layout, &Path::new("/berth").join(name), &resources).map_err(text)?;
        Ok(Self { group: Some(group), children: Vec::new() })
    }

    fn group(&self) -> &Cgroup {
        self.group.as_ref().expect("taken only by drop")
    }

    fn read(&self, file: &str) -> Result<String, String> {
        let dir = self.group().paths().remove("").ok_or("no cgroup2 directory")?;
        let content = std::fs::read_to_string(dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
        Ok(content.trim().to_owned())
    }

    fn expect(&self, file: &str, wanted: &str) -> Outcome {
        let found = self.read(file)?;
        if found == wanted { Ok(()) } else { Err(format!("{file} is {found:?}, not {wanted:?}")) }
    }

    /// Starts a role, moves it in and lets it go.
    fn start(&mut self, role: &[&str]) -> Result<usize, String> {
        let mut child =
            Command::new("/proc/self/exe").args(role).stdin(Stdio::piped()).spawn().map_err(text)?;
        let moved = self.group().add(Pid::from_raw(child.id() as i32)).map_err(text);
        child.stdin.as_mut().expect("piped above").write_all(b"go\n").map_err(text)?;
        self.children.push(child);
        moved?;
        Ok(self.children.len() - 1)
    }

    fn wait(&mut self, child: usize) -> Result<ExitStatus, String> {
        self.children[child].wait().map_err(text)
    }

    fn run(&mut self, role: &[&str]) -> Result<ExitStatus, String> {
        let child = self.start(role)?;
        self.wait(child)
    }

    fn usage(&self) -> Result<Duration, String> {
        Ok(Duration::from_nanos(self.group().stats().map_err(text)?.cpu.usage_ns))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let Some(group) = self.group.take() else { return };
        group.thaw().ok();
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        if let Err(errors) = group.remove() {
            println!("not ok removal: {errors:?}");
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why()) }
}

fn only_v2() -> Outcome {
    let layout = detect().map_err(text)?;
    ensure(matches!(layout, Layout::V2 { .. }), || format!("{layout:?}"))
}

fn memory_kill() -> Outcome {
    let mut scene = Scene::new("hog", r#"{"memory":{"limit":33554432,"swap":33554432}}"#)?;
    scene.expect("memory.max", "33554432")?;
    let watch = scene.group().oom_watch().map_err(text)?.ok_or("no watch for memory.events")?;
    let status = scene.run(&["hog", "128"])?;
    // A shell would say 137.
    ensure(status.signal() == Some(9), || format!("the hog ended with {status}"))?;
    let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut polled, PollTimeout::from(60_000u16)).map_err(text)?;
    ensure(ready == 1, || "no out-of-memory notice".to_owned())?;
    watch.drain().map_err(text)?;
    let kills = scene.group().oom_kills().map_err(text)?;
    ensure(kills == 1, || format!("{kills} out-of-memory kills were counted"))
}

fn memory_fits() -> Outcome {
    let mut scene = Scene::new("modest", r#"{"memory":{"limit":33554432,"swap":33554432}}"#)?;
    let status = scene.run(&["hog", "8"])?;
    ensure(status.success(), || format!("ended with {status}"))?;
    let peak = scene.group().stats().map_err(text)?.memory;
    ensure(peak.limit == Some(33_554_432) && peak.max_usage > 8 * MIB as u64 || peak.max_usage == 0, || {
        format!("{peak:?}")
    })
}

/// The host takes time from an emulated processor at will: three seconds in which it did not are enough.
fn cpu_quota() -> Outcome {
    cpu_share().or_else(|_| cpu_share()).or_else(|_| cpu_share())
}

fn cpu_share() -> Outcome {
    let mut scene = Scene::new("slow", r#"{"cpu":{"quota":20000,"period":100000}}"#)?;
    scene.expect("cpu.max", "20000 100000")?;
    scene.start(&["spin"])?;
    let (start, before) = (Instant::now(), scene.usage()?);
    sleep(Duration::from_secs(3));
    let share = (scene.usage()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    let throttled = scene.group().stats().map_err(text)?.cpu.throttled_periods;
    println!("# cpu share {share:.3} under a quota of 0.200, {throttled} periods throttled");
    ensure((0.12..0.27).contains(&share) && throttled > 5, || {
        format!("share {share:.3}, {throttled} throttled")
    })
}

fn cpu_weight() -> Outcome {
    Scene::new("weight", r#"{"cpu":{"shares":512}}"#)?.expect("cpu.weight", "59")
}

fn cpuset() -> Outcome {
    let mut scene = Scene::new("pinned", r#"{"cpu":{"cpus":"0"}}"#)?;
    let child = scene.start(&["sleep"])?;
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", scene.children[child].id())).map_err(text)?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap_or("none");
    ensure(list == "0", || format!("allowed processors: {list}"))
}

fn pids() -> Outcome {
    let mut scene = Scene::new("bomb", r#"{"pids":{"limit":5}}"#)?;
    scene.expect("pids.max", "5")?;
    let status = scene.run(&["fork"])?;
    ensure(status.code() == Some(4), || format!("{:?} children instead of 4", status.code()))
}

fn freezer() -> Outcome {
    let mut scene = Scene::new("frozen", "{}")?;
    scene.start(&["spin"])?;
    sleep(Duration::from_millis(200));
    scene.group().freeze().map_err(text)?;
    let state = scene.group().freezer_state().map_err(text)?;
    ensure(state == FreezerState::Frozen, || format!("{state:?}"))?;
    // An emulated clock accounts late, and the host stops it at will: it stands still in the end, and goes on in the end.
    let mut last = scene.usage()?;
    let stands = || {
        sleep(Duration::from_millis(300));
        let now = scene.usage()?;
        Ok(std::mem::replace(&mut last, now) == now)
    };
    eventually(stands, || "it runs while it is frozen".to_owned())?;
    let frozen = scene.usage()?;
    scene.group().thaw().map_err(text)?;
    let goes_on = || Ok(scene.usage()? > frozen + Duration::from_millis(50));
    eventually(goes_on, || "it stands still after the thaw".to_owned())
}

fn devices() -> Outcome {
    let only_null = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]}"#;
    let mut scene = Scene::new("devices", only_null)?;
    let open = |scene: &mut Scene, path| scene.run(&["open", path]).map(|status| status.code());
    let (null, zero) = (open(&mut scene, "/dev/null")?, open(&mut scene, "/dev/zero")?);
    ensure((null, zero) == (Some(0), Some(1)), || format!("null {null:?}, zero {zero:?} (1 is EPERM)"))?;
    let with_zero =
        r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":5,"access":"r"}]}"#;
    scene.group().set(&serde_json::from_str(with_zero).map_err(text)?).map_err(text)?;
    let (null, zero) = (open(&mut scene, "/dev/null")?, open(&mut scene, "/dev/zero")?);
    ensure((null, zero) == (Some(1), Some(0)), || format!("after the change: null {null:?}, zero {zero:?}"))
}

fn kill_tree() -> Outcome {
    let mut scene = Scene::new("tree", "{}")?;
    let root = scene.group().paths().remove("").ok_or("no directory")?;
    let nested = root.join("a/b");
    std::fs::create_dir_all(&nested).map_err(text)?;
    let children = [scene.start(&["sleep"])?, scene.start(&["spin"])?];
    std::fs::write(nested.join("cgroup.procs"), scene.children[1].id().to_string()).map_err(text)?;
    let found = scene.group().pids().map_err(text)?.len();
    ensure(found == 2, || format!("{found} processes in the tree"))?;
    scene.group().kill_all().map_err(text)?;
    for child in children {
        let status = scene.wait(child)?;
        ensure(status.signal() == Some(9), || format!("ended with {status}"))?;
    }
    Ok(())
}

fn unified() -> Outcome {
    let scene =
        Scene::new("unified", r#"{"unified":{"memory.high":"16777216","pids.max":"9","cpu.weight":"77"}}"#)?;
    scene.expect("memory.high", "16777216")?;
    scene.expect("pids.max", "9")?;
    scene.expect("cpu.weight", "77")?;
    let refused = Scene::new("refused", r#"{"unified":{"memory.nonsense":"1"}}"#);
    let error = refused.err().ok_or("a key that does not exist was accepted")?;
    ensure(error.contains("memory.nonsense") && !Path::new("/sys/fs/cgroup/berth/refused").exists(), || error)
}

fn delegation() -> Outcome {
    let scene = Scene::new("deep/er", "{}")?;
    let root = std::fs::read_to_string("/sys/fs/cgroup/cgroup.procs").map_err(text)?;
    let me = std::process::id().to_string();
    ensure(root.lines().any(|pid| pid == me), || "the caller was moved".to_owned())?;
    for level in ["", "berth", "berth/deep"] {
        let file = Path::new("/sys/fs/cgroup").join(level).join("cgroup.subtree_control");
        let enabled = std::fs::read_to_string(&file).map_err(text)?;
        for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
            let on = enabled.split_whitespace().any(|own| own == controller);
            ensure(on, || format!("{controller} is missing in {}", file.display()))?;
        }
    }
    // The owner of the subtree hands its limits on.
    let own = scene.group().paths().remove("").ok_or("no directory")?;
    std::fs::write(own.join("cgroup.subtree_control"), "+memory").map_err(text)?;
    std::fs::create_dir(own.join("inner")).map_err(text)?;
    std::fs::write(own.join("inner/memory.max"), "1048576").map_err(text)?;
    drop(scene);
    std::fs::remove_dir("/sys/fs/cgroup/berth/deep").map_err(text)
}

fn born_inside() -> Outcome {
    let scene = Scene::new("born", "{}")?;
    let request = berth_sys::clone::Clone3 { cgroup: scene.group().dir_fd(), ..Default::default() };
    match berth_sys::clone::clone3(&request).map_err(text)? {
        berth_sys::clone::Forked::Child => {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            std::process::exit(if own.trim() == "0::/berth/born" { 0 } else { 1 });
        }
        berth_sys::clone::Forked::Parent { pid, .. } => {
            let status = nix::sys::wait::waitpid(pid, None).map_err(text)?;
            ensure(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), || format!("{status:?}"))
        }
    }
}

fn update() -> Outcome {
    let mut scene =
        Scene::new("update", r#"{"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":5}}"#)?;
    scene.start(&["sleep"])?;
    let change = r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"quota":30000}}"#;
    scene.group().set(&serde_json::from_str(change).map_err(text)?).map_err(text)?;
    scene.expect("memory.max", "67108864")?;
    scene.expect("cpu.max", "30000 100000")?;
    scene.expect("pids.max", "5")
}

/// Polls for up to a minute: counters of a group come a moment late.
fn eventually(mut holds: impl FnMut() -> Result<bool, String>, why: impl FnOnce() -> String) -> Outcome {
    for _ in 0..600 {
        if holds()? {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    Err(why())
}

fn pressure() -> Outcome {
    let mut scene = Scene::new("pressed", r#"{"cpu":{"quota":10000,"period":100000}}"#)?;
    scene.start(&["spin"])?;
    let stalled = || {
        let pressure = scene.group().stats().map_err(text)?.pressure;
        let cpu = pressure.cpu.ok_or("no pressure of the processor")?;
        pressure.memory.ok_or("no pressure of memory")?;
        pressure.io.ok_or("no pressure of block devices")?;
        Ok(cpu.some.total_us > 0 && cpu.some.average[0] > 0)
    };
    eventually(stalled, || "a throttled process never waited".to_owned())
}

const HUGE: &str = "/dev/huge";

/// Allocates huge pages of 2 MiB.
fn huge(pages: i64) -> Outcome {
    let file = std::fs::File::create(format!("{HUGE}/{}", std::process::id())).map_err(text)?;
    let allocated = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, pages << 21);
    std::fs::remove_file(format!("{HUGE}/{}", std::process::id())).map_err(text)?;
    allocated.map_err(|errno| format!("fallocate: {errno}"))
}

fn huge_pages() -> Outcome {
    std::fs::write("/proc/sys/vm/nr_hugepages", "8").map_err(text)?;
    std::fs::create_dir_all(HUGE).map_err(text)?;
    let none: Option<&str> = None;
    nix::mount::mount(Some("huge"), HUGE, Some("hugetlbfs"), nix::mount::MsFlags::empty(), none)
        .map_err(text)?;
    let mut scene = Scene::new("huge", r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#)?;
    scene.expect("hugetlb.2MB.max", "4194304")?;
    let (fits, too_many) = (scene.run(&["huge", "2"])?, scene.run(&["huge", "3"])?);
    ensure(fits.success() && too_many.code() == Some(1), || format!("2 pages: {fits}, 3 pages: {too_many}"))?;
    let counted = scene.group().stats().map_err(text)?.huge_pages;
    drop(scene);
    nix::mount::umount(HUGE).map_err(text)?;
    std::fs::write("/proc/sys/vm/nr_hugepages", "0").map_err(text)?;
    ensure(counted.get("2MB").is_some_and(|pages| pages.failcnt > 0), || format!("{counted:?}"))
}

fn block_io() -> Outcome {
    let busybox = |arguments: &[&str]| {
        let status = Command::new("/bin/busybox").args(arguments).status().map_err(text)?;
        ensure(status.success(), || format!("{arguments:?} ended with {status}"))
    };
    let file = std::fs::File::create("/tmp/disk").map_err(text)?;
    file.set_len(4 * MIB as u64).map_err(text)?;
    busybox(&["losetup", "/dev/loop0", "/tmp/disk"])?;
    let limits = r#"{"blockIO":{"weight":500,"throttleWriteBpsDevice":[{"major":7,"minor":0,"rate":1073741824}],
        "throttleReadIOPSDevice":[{"major":7,"minor":0,"rate":5000}]}}"#;
    let mut scene = Scene::new("disk", limits)?;
    scene.expect("io.max", "7:0 rbps=max wbps=1073741824 riops=5000 wiops=max")?;
    let status = scene.run(&["write", "/dev/loop0"])?;
    ensure(status.success(), || format!("the writer ended with {status}"))?;
    let written = || {
        let io = scene.group().stats().map_err(text)?.io;
        Ok(io.iter().any(|device| (device.major, device.minor) == (7, 0) && device.write_bytes >= MIB as u64))
    };
    eventually(written, || "io.stat shows no write".to_owned())?;
    busybox(&["losetup", "-d", "/dev/loop0"])
}

fn handed_over() -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let user = 1000;
    let scene = Scene::new("theirs", r#"{"memory":{"limit":33554432}}"#)?;
    scene.group().delegate(user).map_err(text)?;
    let own = scene.group().paths().remove("").ok_or("no directory")?;
    for (file, owner) in [
        (".", user),
        ("cgroup.procs", user),
        ("cgroup.subtree_control", user),
        ("memory.max", 0),
        ("pids.max", 0),
    ] {
        let found = std::fs::metadata(own.join(file)).map_err(text)?.uid();
        ensure(found == owner, || format!("{file} belongs to {found}"))?;
    }
    let made = own.join("made").display().to_string();
    let mut as_user = Command::new("/proc/self/exe");
    as_user.args(["mkdir", &made]).uid(user).gid(user).stdin(Stdio::piped());
    let mut child = as_user.spawn().map_err(text)?;
    drop(child.stdin.take());
    let status = child.wait().map_err(text)?;
    ensure(status.success() && own.join("made").is_dir(), || "no group can be made below".to_owned())
}

fn born_beside() -> Outcome {
    let mut scene = Scene::new("split", "{}")?;
    let own = scene.group().paths().remove("").ok_or("no directory")?;
    let init = scene.start(&["sleep"])?;
    let pid = scene.children[init].id();
    std::fs::create_dir(own.join("inner")).map_err(text)?;
    std::fs::write(own.join("inner/cgroup.procs"), pid.to_string()).map_err(text)?;
    std::fs::write(own.join("cgroup.subtree_control"), "+memory").map_err(text)?;
    let born = |cgroup| berth_sys::clone::clone3(&berth_sys::clone::Clone3 { cgroup, ..Default::default() });
    let refused = born(scene.group().dir_fd());
    ensure(matches!(refused, Err(nix::errno::Errno::EBUSY)), || format!("beside the group: {refused:?}"))?;
    let layout = detect().map_err(text)?;
    let beside = Cgroup::of_process(&layout, Pid::from_raw(pid.cast_signed())).map_err(text)?;
    match born(beside.dir_fd()).map_err(text)? {
        berth_sys::clone::Forked::Child => {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            std::process::exit(if own.trim() == "0::/berth/split/inner" { 0 } else { 1 });
        }
        berth_sys::clone::Forked::Parent { pid, .. } => {
            let status = nix::sys::wait::waitpid(pid, None).map_err(text)?;
            ensure(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), || format!("{status:?}"))
        }
    }
}

fn one_process() -> Outcome {
    let mut scene = Scene::new("one", r#"{"pids":{"limit":1}}"#)?;
    scene.expect("pids.max", "max")?;
    scene.group.as_mut().expect("taken only by drop").populated().map_err(text)?;
    scene.expect("pids.max", "1")
}

fn seccomp() -> Outcome {
    let mut scene = Scene::new("seccomp", "{}")?;
    let status = scene.run(&["seccomp"])?;
    ensure(status.success(), || format!("ended with {status}"))
}

fn parent() -> Outcome {
    let layout = detect().map_err(text)?;
    let scene = Scene::new("last", "{}")?;
    let early = prune(&layout, Path::new("/berth")).map_err(text)?;
    drop(scene);
    let late = prune(&layout, Path::new("/berth")).map_err(text)?;
    let exists = Path::new("/sys/fs/cgroup/berth").exists();
    ensure(!early && late && !exists, || format!("early {early}, late {late}, exists {exists}"))
}
