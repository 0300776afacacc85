//! The docker CLI's network and volume commands on berthd and on a real dockerd: the same words and exit codes.

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::dockerd::Dockerd;

/// Commands whose outcome is compared: exit code and standard output, with ids as `<id>`. Errors are compared up to
/// the words that the other has for the same thing; see [`same_error`].
const SCRIPT: &[&str] = &[
    "network create --subnet 10.219.0.0/24 --ip-range 10.219.0.128/25 --gateway 10.219.0.1 --aux-address a=10.219.0.200 --label k=v one",
    "network create --internal --attachable -o com.docker.network.driver.mtu=1400 two",
    "network create one",
    "network create bridge",
    "network create --subnet 10.219.0.0/25 three",
    "network create --driver nosuch three",
    "network ls --format {{.Name}}/{{.Driver}}/{{.Scope}}/{{.Internal}}/{{.IPv6}}/{{.Labels}}",
    "network ls -q --filter name=one",
    "network ls --format {{.Name}} --filter label=k",
    "network ls --format {{.Name}} --filter type=builtin",
    "network ls --format {{.Name}} --filter dangling=true",
    "network ls --filter bogus=1",
    "network inspect one --format {{.Name}}/{{.Driver}}/{{.Internal}}/{{.Attachable}}/{{.EnableIPv6}}/{{json.IPAM.Config}}/{{json.Labels}}/{{json.Options}}",
    "network inspect two --format {{.Internal}}/{{.Attachable}}/{{json.Options}}",
    "network inspect nosuch",
    "create --name c --network one --ip 10.219.0.77 --network-alias al busybox true",
    "network connect two c",
    "network connect nosuch c",
    "network connect two nosuch",
    "network disconnect two c",
    "network disconnect two c",
    "network connect --alias x --ip 10.220.0.5 two c",
    "container inspect c --format {{range$k,$v:=.NetworkSettings.Networks}}{{$k}};{{end}}",
    "network rm bridge",
    "network rm nosuch",
    "rm c",
    "network rm one two",
    "network prune -f",
    "run --rm --network nosuch busybox true",
    "run --rm --network none busybox ls /sys/class/net",
    "run --rm --network host --ip 1.2.3.4 busybox true",
    "run --rm -p 80:80/bogus busybox true",
    "volume create --label k=v data",
    "volume create data",
    "volume create --driver nosuch x",
    "volume create -o bogus=1 x",
    "volume create -o type=tmpfs x",
    "volume create a/b",
    "volume ls --format {{.Name}}/{{.Driver}}/{{.Scope}}/{{.Labels}}",
    "volume ls -q --filter label=k=v",
    "volume ls -q --filter name=dat",
    "volume ls -q --filter dangling=true",
    "volume ls -q --filter bogus=1",
    "volume inspect data --format {{.Name}}/{{.Driver}}/{{.Scope}}/{{json.Labels}}/{{json.Options}}",
    "volume inspect nosuch",
    "create --name v -v data:/d busybox true",
    "inspect v --format {{range.Mounts}}{{.Type}}/{{.Name}}/{{.Destination}}/{{.Driver}}/{{.Mode}}/{{.RW}}/{{.Propagation}}{{end}}",
    "volume rm data",
    "rm v",
    "volume rm data nosuch",
    "run --rm -v /nosuch:relative busybox true",
    "run --rm -v data:/d:bogus busybox true",
    "run --rm --mount type=bind,source=/nosuch/dir,target=/x busybox true",
    "run --rm --mount type=bogus,target=/x busybox true",
    "run --rm --mount type=tmpfs,target=/x,tmpfs-size=65536,tmpfs-mode=700 busybox stat -c %a /x",
    "run --rm --tmpfs /x:size=64k,mode=701 busybox stat -c %a /x",
    "run --rm -v /d busybox stat -c %a /d",
];

/// Commands that are answered otherwise on purpose, or because dockerd 20.10 is old: with the reason.
const OTHERWISE: &[(&str, &str)] = &[
    ("volume create -o type=tmpfs x", "we say which option is missing, in the later dockerd's words"),
    ("network create --internal", "later dockerds leave out MTU's default"),
];

fn run(cli: &Cli, line: &str) -> (i32, String, String) {
    // A template's keyword and its field are one word in the script, which is split at blanks.
    let words: Vec<String> = line
        .split(' ')
        .map(|word| {
            word.replace("{{json", "{{json ")
                .replace("{{range.", "{{range .")
                .replace("{{range$", "{{range $")
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = cli.run(&words);
    (outcome.code, plain(&outcome.stdout), plain(&outcome.stderr))
}

/// Ids become `<id>`; hints of the command line are left out.
fn plain(text: &str) -> String {
    let id = |word: &str| word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let line = |line: &str| {
        let words =
            line.split(' ').map(|word| match id(word.trim_matches(|c: char| !c.is_ascii_alphanumeric())) {
                true => "<id>",
                false => word,
            });
        words.collect::<Vec<_>>().join(" ")
    };
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("Run 'docker"));
    lines.map(line).collect::<Vec<_>>().join("\n")
}

/// Both refuse, and we say at least where: the first words of an error are the command line's or docker's own.
fn same_error(ours: &str, theirs: &str) -> bool {
    let head = |text: &str| text.split([':', ' ']).take(3).collect::<Vec<_>>().join(" ").to_lowercase();
    ours.is_empty() == theirs.is_empty() && head(ours) == head(theirs)
}

#[test]
fn the_same_words_as_dockerd() {
    let (daemon, dockerd) = (Daemon::with_busybox(), Dockerd::start());
    let (ours, theirs) = (daemon.cli(Frontend::Docker), dockerd.cli(Frontend::Docker));
    theirs.import_busybox("busybox");
    let mut differences = Vec::new();
    for line in SCRIPT {
        let (our, their) = (run(&ours, line), run(&theirs, line));
        let known = OTHERWISE.iter().any(|(command, _)| line.starts_with(command));
        let same = our.0 == their.0 && our.1 == their.1 && same_error(&our.2, &their.2);
        if !same && !known {
            differences.push(format!("{line}\n  berthd:  {our:?}\n  dockerd: {their:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
