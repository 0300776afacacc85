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
    "create --name cc --network one --ip 10.219.0.77 --network-alias al busybox true",
    "network connect two cc",
    "network connect two nosuch",
    "network disconnect two cc",
    "network disconnect two cc",
    "network connect --alias x --ip 10.220.0.5 two cc",
    "container inspect cc --format {{range$k,$v:=.NetworkSettings.Networks}}{{$k}};{{end}}",
    "network rm bridge",
    "network rm nosuch",
    "rm cc",
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
    "create --name vv -v data:/d busybox true",
    "inspect vv --format {{range.Mounts}}{{.Type}}/{{.Name}}/{{.Destination}}/{{.Driver}}/{{.Mode}}/{{.RW}}/{{.Propagation}}{{end}}",
    "volume rm data",
    "rm vv",
    "volume rm data nosuch",
    "run --rm -v /nosuch:relative busybox true",
    "run --rm -v data:/d:bogus busybox true",
    "run --rm --mount type=bind,source=/nosuch/dir,target=/x busybox true",
    "run --rm --mount type=bogus,target=/x busybox true",
    "run --rm --mount type=tmpfs,target=/x,tmpfs-size=65536,tmpfs-mode=700 busybox stat -c %a /x",
    "run --rm --tmpfs /x:size=64k,mode=701 busybox stat -c %a /x",
    "run --rm -v /d busybox stat -c %a /d",
    // Every flag of `network create`, and what it became.
    "network create --config-only --label team=a --subnet 10.221.0.0/24 template",
    "network create --config-from template made",
    "network create --config-from nosuch made2",
    "network inspect made --format {{.ConfigFrom.Network}}/{{.ConfigOnly}}/{{json.Labels}}/{{json.IPAM.Config}}",
    "network rm template",
    "network rm made",
    "network rm template",
    "network create --ipv6 --subnet fd21::/64 --subnet 10.222.0.0/24 six",
    "network inspect six --format {{.EnableIPv6}}/{{len.IPAM.Config}}",
    "network create --ipam-driver nosuch three",
    "network create --ipam-driver default --ipam-opt a=b three",
    "network inspect three --format {{.IPAM.Driver}}/{{json.IPAM.Options}}",
    "network create --scope local four",
    "network create --scope nosuch five",
    "network create --ingress five",
    "network create --subnet 10.223.0.0/33 five",
    "network create --subnet 10.223.0.0/24 --gateway 10.224.0.1 five",
    "network create --subnet 10.223.0.0/24 --ip-range 10.224.0.0/25 five",
    "network create --gateway 10.223.0.1 five",
    "network create --subnet 10.223.0.0/24 --subnet 10.223.0.0/25 five",
    "network create -o com.docker.network.bridge.name=brdiff -o com.docker.network.bridge.enable_icc=false named",
    "network inspect named --format {{json.Options}}",
    "network create -d macvlan -o parent=nosuch0 mac",
    // Lists by every filter.
    "network ls --format {{.Name}} --filter driver=bridge",
    "network ls --format {{.Name}} --filter driver=host --filter driver=null",
    "network ls --format {{.Name}} --filter scope=local --filter type=custom",
    "network ls --format {{.Name}} --filter id=zzz",
    "network ls --format {{.Name}} --filter label=team=a",
    "network ls --no-trunc --format {{.Driver}}/{{.Name}} --filter name=six",
    "network ls --filter type=bogus",
    "network ls --filter dangling=bogus",
    "network inspect -v four --format {{.Name}}",
    // Every flag of connect and disconnect, before the container runs and while it does.
    "create --name dd --network six --ip6 fd21::9 --link-local-ip 169.254.7.7 busybox sleep 100",
    "network connect --alias z --driver-opt a=b --link dd:x four dd",
    "network connect --ip 10.99.0.9 three dd",
    "network connect --ip6 fd21::10 six dd",
    "start dd",
    "network connect three dd",
    "network connect three dd",
    "network connect nosuch dd",
    "exec dd ls /sys/class/net",
    "network inspect three --format {{range.Containers}}{{.Name}}{{end}}",
    "network rm three",
    "network disconnect -f three dd",
    "network disconnect -f three dd",
    "network disconnect three nosuch",
    "network disconnect -f three nosuch",
    "network connect host dd",
    "network connect none dd",
    "network disconnect host dd",
    "exec dd ls /sys/class/net",
    "network prune -f --filter label=nosuch",
    "network prune -f --filter until=bogus",
    "network prune -f --filter bogus=1",
    "network rm -f nosuch",
    "rm -f dd",
    "network prune -f",
    "network ls --format {{.Name}} --filter type=custom",
    // Names, ports and files of a container's network.
    "run --rm --hostname h --domainname example.org --add-host a:1.2.3.4 --dns 9.9.9.9 --dns-search x.org --dns-option ndots:2 busybox cat /etc/resolv.conf",
    "run --rm --hostname hh --domainname example.org --add-host a:1.2.3.4 busybox hostname",
    "run --rm --network none --hostname h busybox cat /etc/hosts",
    "run --rm --network-alias x busybox true",
    "run --rm --ip 172.17.0.99 busybox true",
    "run --rm --mac-address zz busybox true",
    "run --rm --dns nonsense busybox true",
    "run --rm --add-host nonsense busybox true",
    "run --rm -p 70000:80 busybox true",
    "run --rm -p 1-3:1-2 busybox true",
    "run --rm -p x:80 busybox true",
    "run --rm --expose x busybox true",
    "create --name pp -p 127.0.0.1:18099:80/udp -p 18098:81 --expose 99 busybox true",
    "inspect pp --format {{json.HostConfig.PortBindings}}/{{json.Config.ExposedPorts}}",
    "port pp",
    "rm pp",
    // Volumes: every flag, every way to mount.
    "volume create -d local -o type=tmpfs -o device=tmpfs -o o=size=65536 --label a=b ram",
    "volume inspect ram --format {{json.Options}}/{{json.Labels}}/{{.Scope}}",
    "run --rm -v ram:/r busybox sh -c df</dev/null|grep -c /r",
    "volume ls -q --filter driver=local --filter name=ram",
    "volume ls -q --filter driver=nosuch",
    "volume ls --filter dangling=bogus",
    "volume create .hidden",
    "volume create x",
    "volume rm -f nosuch",
    "volume rm x x",
    "create --name ww -v keep:/k:ro -v /a:/b:rshared -v /anon -v three:/t:nocopy --mount type=volume,src=four,dst=/f,volume-nocopy,readonly --tmpfs /q:size=1m busybox true",
    "inspect ww --format {{range.Mounts}}{{.Type}}/{{.Destination}}/{{.Mode}}/{{.RW}}/{{.Propagation}};{{end}}",
    "create --name ww2 --volumes-from ww:ro busybox true",
    "inspect ww2 --format {{range.Mounts}}{{.Destination}}/{{.RW}};{{end}}",
    "create --volumes-from nosuch busybox true",
    "create --volumes-from ww:bogus busybox true",
    "volume rm keep",
    "rm ww2",
    "rm -v ww",
    "volume ls -q --filter name=keep",
    "run --rm -v /tmp:/tmp:ro,rw busybox true",
    "run --rm -v /:/ busybox true",
    "run --rm -v ./a:/b:c:d busybox true",
    "run --rm -v name:/x:rshared busybox true",
    "run --rm --mount type=volume,target=relative busybox true",
    "run --rm --mount type=bind,source=relative,target=/x busybox true",
    "run --rm --mount type=bind,target=/x busybox true",
    "run --rm --mount type=tmpfs,source=a,target=/x busybox true",
    "run --rm --mount type=bind,source=/tmp,target=/x,volume-nocopy busybox true",
    "run --rm --mount type=volume,source=v,target=/x,bind-propagation=rshared busybox true",
    "run --rm --mount type=bind,source=/tmp,target=/x,bind-propagation=bogus busybox true",
    "run --rm --mount type=bind,source=/tmp,target=/x,readonly,bind-propagation=rslave busybox sh -c touch</dev/null/x/y",
    "run --rm --mount type=npipe,source=/tmp,target=/x busybox true",
    "run --rm --mount type=volume,source=opt,target=/x,volume-driver=nosuch busybox true",
    "run --rm --mount type=volume,source=opt,target=/x,volume-label=l=m,volume-opt=type=tmpfs,volume-opt=device=tmpfs busybox true",
    "volume inspect opt --format {{json.Labels}}/{{json.Options}}",
    "run --rm --mount target=/x busybox true",
    "run --rm --mount type=volume busybox true",
    "run --rm --tmpfs relative busybox true",
    "run --rm --tmpfs /x:size=bogus busybox true",
    "run --rm --tmpfs /x --tmpfs /x busybox true",
    "run --rm --read-only --tmpfs /x busybox touch /x/y",
    "run --rm --read-only busybox touch /y",
    "volume prune -f --filter label=nosuch",
    "volume prune -f --filter bogus=1",
    "volume rm ram opt",
    "volume ls -q",
];

/// Commands that are answered otherwise on purpose, or because dockerd 20.10 is old: with the reason.
const OTHERWISE: &[(&str, &str)] = &[
    ("volume create -o type=tmpfs x", "we say which option is missing, in the later dockerd's words"),
    ("network create --internal", "later dockerds leave out MTU's default"),
    ("network inspect made", "later dockerds tell the gateway that they chose"),
    ("run --rm --hostname h --domainname", "later dockerds write the servers before the search list"),
    ("run --rm --network none --hostname h busybox cat", "later dockerds write fe00:: for fe00::0"),
    (
        "run --rm --mount type=bind,source=/tmp,target=/x,readonly,bind-propagation=rslave",
        "a source whose mount is private has nothing to propagate: no reason to refuse it",
    ),
    (
        "run --rm --mount type=volume,source=opt,target=/x,volume-driver=nosuch",
        "a missing driver is no missing image, for which the command line takes dockerd's answer and pulls",
    ),
];

fn run(cli: &Cli, line: &str) -> (i32, String, String) {
    // A template's keyword and its field are one word in the script, which is split at blanks.
    let words: Vec<String> = line
        .split(' ')
        .map(|word| {
            word.replace("{{json", "{{json ")
                .replace("{{len.", "{{len .")
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

/// What is pruned comes in no order, and neither do mounts.
fn in_order((code, out, err): (i32, String, String)) -> (i32, String, String) {
    let mut lines: Vec<&str> = out.split(['\n', ';']).collect();
    lines.sort_unstable();
    (code, lines.join("\n"), err)
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
        let (our, their) = if line.contains("prune") || line.contains("range.Mounts") {
            (in_order(our), in_order(their))
        } else {
            (our, their)
        };
        let same = our.0 == their.0 && our.1 == their.1 && same_error(&our.2, &their.2);
        if !same && !known {
            differences.push(format!("{line}\n  berthd:  {our:?}\n  dockerd: {their:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
