//! Every command of the docker CLI, one row each at least, in an order that makes sense. The same rows run on berthd and on a
//! real dockerd; what the two print must be the same, but for what changes from run to run (see [`plain`]).

/// How the two are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Exit code and both outputs.
    All,
    /// Exit code and both outputs, but for the order of the lines.
    Unordered,
    /// Exit code and standard output; the words of the error are others, for this reason.
    NotTheWords(&'static str),
    /// The exit code alone, for this reason.
    Code(&'static str),
}
use Compared::{All, Code, NotTheWords, Unordered};

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its words. `DIR` is a directory of the run's own.
    pub words: &'static [&'static str],
    /// How the outcomes are compared.
    pub compared: Compared,
}

const fn row(words: &'static [&'static str]) -> Row {
    Row { words, compared: All }
}

const fn but(words: &'static [&'static str], compared: Compared) -> Row {
    Row { words, compared }
}

const OWN: &str = "tells of the engine itself";
const SIZES: &str = "sizes of layers are counted differently";
const LIVE: &str = "figures of this very moment";
const BUILDER: &str = "the classic builder names the image of each step, and Berth has none";
const NEWER: &str = "dockerd 20.10 says it in other words than the newest, whose words ours are";
const LAYERS: &str = "layers are not images of their own";
const NETWORK: &str = "there is no such server here, and each says so in its own words";

/// The commands, in their order.
pub const ROWS: &[Row] = &[
    but(&["version"], Code(OWN)),
    but(&["info"], Code(OWN)),
    but(&["system", "info"], Code(OWN)),
    // Images.
    row(&["images", "--format", "{{.Repository}}:{{.Tag}}"]),
    row(&["image", "ls", "-q"]),
    row(&["tag", "busybox", "mine:1"]),
    row(&["image", "tag", "busybox", "mine:2"]),
    row(&["tag", "nosuch", "mine:3"]),
    row(&["images", "mine", "--format", "{{.Tag}}"]),
    row(&["rmi", "mine:1"]),
    row(&["image", "rm", "mine:2"]),
    row(&["rmi", "nosuch"]),
    row(&["history", "busybox", "--format", "{{.Comment}}"]),
    row(&["image", "history", "busybox", "--format", "{{.CreatedBy}}"]),
    row(&["image", "inspect", "busybox", "--format", "{{json .Config.Cmd}} {{.Os}} {{.Architecture}}"]),
    but(&["image", "inspect", "nosuch"], NotTheWords(NEWER)),
    row(&["save", "-o", "DIR/saved.tar", "busybox"]),
    row(&["image", "save", "-o", "DIR/again.tar", "busybox"]),
    but(&["save", "-o", "DIR/none.tar", "nosuch"], NotTheWords(NEWER)),
    row(&["load", "-i", "DIR/saved.tar"]),
    row(&["image", "load", "-q", "-i", "DIR/again.tar"]),
    row(&["import", "DIR/base.tar", "imported:1"]),
    row(&["image", "import", "--change", "ENV A=b", "DIR/base.tar", "imported:2"]),
    row(&["inspect", "imported:2", "--format", "{{.Config.Env}}"]),
    but(&["build", "-t", "built:1", "DIR/context"], Code(BUILDER)),
    but(&["image", "build", "-q", "-t", "built:2", "DIR/context"], All),
    but(&["builder", "build", "-q", "-t", "built:3", "DIR/context"], All),
    row(&["run", "--rm", "built:1"]),
    but(&["builder", "prune", "-f"], Code(SIZES)),
    but(&["pull", "127.0.0.1:1/nosuch"], Code(NETWORK)),
    but(&["image", "pull", "127.0.0.1:1/nosuch"], Code(NETWORK)),
    row(&["tag", "busybox", "127.0.0.1:1/mine"]),
    but(&["push", "127.0.0.1:1/mine"], Code(NETWORK)),
    but(&["image", "push", "127.0.0.1:1/mine"], Code(NETWORK)),
    but(&["search", "127.0.0.1:1/nosuch"], NotTheWords(NETWORK)),
    but(&["login", "127.0.0.1:1", "-u", "a", "-p", "b"], Code(NETWORK)),
    row(&["logout", "127.0.0.1:1"]),
    but(&["rmi", "127.0.0.1:1/mine", "imported:1", "imported:2", "built:2", "built:3"], Code(LAYERS)),
    but(&["image", "prune", "-f"], Code(SIZES)),
    // Containers.
    row(&["create", "--name", "one", "-l", "a=b", "busybox", "sleep", "1000"]),
    row(&["container", "create", "--name", "two", "busybox", "echo", "two"]),
    row(&["create", "--name", "one", "busybox"]),
    row(&["create", "nosuch-image-of-anybody:1", "x"]).no_pull(),
    row(&["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Status}} {{.Labels}}"]),
    row(&["container", "ls", "-aq"]),
    row(&["start", "one"]),
    row(&["container", "start", "-a", "two"]),
    row(&["start", "nosuch"]),
    row(&["ps", "--format", "{{.Names}} {{.State}}"]),
    row(&["run", "--name", "three", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]),
    row(&[
        "container",
        "run",
        "-d",
        "--name",
        "four",
        "-p",
        "127.0.0.1:18765:80",
        "busybox",
        "sleep",
        "1000",
    ]),
    but(&["run", "--rm", "busybox", "nosuch"], NotTheWords("ours tells the PATH")),
    row(&["exec", "one", "echo", "inside"]),
    row(&["container", "exec", "one", "sh", "-c", "exit 4"]),
    but(&["exec", "three", "true"], NotTheWords(NEWER)),
    row(&["logs", "three"]),
    row(&["container", "logs", "--tail", "1", "two"]),
    row(&["logs", "nosuch"]),
    row(&["attach", "three"]),
    row(&["container", "attach", "nosuch"]),
    row(&["port", "four"]),
    row(&["container", "port", "four", "80/tcp"]),
    row(&["port", "four", "81"]),
    row(&["top", "one", "-o", "comm"]),
    but(&["container", "top", "three"], NotTheWords(NEWER)),
    but(&["stats", "--no-stream", "one"], Code(LIVE)),
    row(&["container", "stats", "--no-stream", "--format", "{{.Name}}", "one"]),
    row(&["exec", "one", "sh", "-c", "echo new > /new; rm /etc/group"]),
    but(&["diff", "one"], Unordered),
    row(&["container", "diff", "two"]),
    row(&["cp", "one:/new", "DIR/new"]),
    row(&["container", "cp", "DIR/new", "one:/newer"]),
    row(&["cp", "one:/nosuch", "DIR/x"]),
    row(&["export", "-o", "DIR/export.tar", "one"]),
    row(&["container", "export", "-o", "DIR/export2.tar", "two"]),
    row(&["commit", "-m", "why", "one", "committed:1"]),
    row(&["container", "commit", "--change", "CMD [\"true\"]", "one", "committed:2"]),
    row(&["inspect", "committed:2", "--format", "{{json .Config.Cmd}}"]),
    row(&["rename", "two", "deux"]),
    row(&["container", "rename", "deux", "two"]),
    row(&["rename", "two", "one"]),
    row(&["pause", "one"]),
    row(&["exec", "one", "true"]),
    row(&["unpause", "one"]),
    row(&["container", "pause", "one"]),
    row(&["container", "unpause", "one"]),
    row(&["unpause", "one"]),
    row(&["update", "--memory", "64m", "--memory-swap", "128m", "one"]),
    row(&["container", "update", "--restart", "always", "two"]),
    row(&["inspect", "one", "--format", "{{.HostConfig.Memory}} {{.State.Status}} {{.Name}}"]),
    row(&["container", "inspect", "two", "--format", "{{.HostConfig.RestartPolicy.Name}}"]),
    row(&["inspect", "nosuch"]),
    row(&["wait", "two"]),
    row(&["kill", "four"]),
    row(&["container", "wait", "four"]),
    but(&["container", "kill", "four"], NotTheWords(NEWER)),
    row(&["stop", "-t", "0", "one"]),
    row(&["container", "stop", "one"]),
    row(&["restart", "-t", "0", "one"]),
    row(&["container", "restart", "-t", "0", "one"]),
    but(&["rm", "one"], NotTheWords(NEWER)),
    row(&["rm", "-f", "one"]),
    row(&["container", "rm", "three", "nosuch"]),
    row(&["container", "prune", "-f", "--filter", "label=nosuch"]),
    // Networks and volumes.
    row(&["network", "create", "--subnet", "10.77.5.0/24", "mine"]),
    row(&["network", "create", "mine"]),
    row(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]),
    row(&["network", "inspect", "mine", "--format", "{{(index .IPAM.Config 0).Subnet}} {{.Internal}}"]),
    row(&["network", "connect", "mine", "two"]),
    row(&["network", "disconnect", "mine", "two"]),
    row(&["network", "rm", "bridge"]),
    row(&["network", "rm", "mine"]),
    row(&["network", "prune", "-f"]),
    row(&["volume", "create", "kept"]),
    row(&["volume", "ls", "-q"]),
    row(&["volume", "inspect", "kept", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]),
    row(&["volume", "rm", "kept"]),
    row(&["volume", "rm", "kept"]),
    row(&["volume", "prune", "-f"]),
    // The engine.
    row(&["events", "--since", "1", "--until", "2"]),
    row(&["system", "events", "--since", "1", "--until", "2"]),
    but(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"], Code(BUILDER)),
    but(&["system", "prune", "-f"], Code(SIZES)),
    row(&["plugin", "ls"]),
    // What only a manager of a swarm answers.
    row(&["node", "ls"]),
    row(&["service", "ls"]),
    row(&["secret", "ls"]),
    row(&["config", "ls"]),
    row(&["stack", "ls"]),
    row(&["swarm", "leave"]),
];

impl Row {
    /// Docker's words about an image that cannot be pulled depend on the network.
    const fn no_pull(self) -> Self {
        Self { compared: NotTheWords(NETWORK), ..self }
    }
}

/// Commands without a row: a group (`context`) or one command.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("context", "the client's own settings"),
    ("manifest", "the client speaks to registries itself"),
    ("trust", "the client speaks to Docker's trust service itself"),
    ("checkpoint", "the client asks for an experimental engine"),
    ("volume update", "of volumes of a swarm"),
    ("plugin", "there are no plugins"),
    ("node", "swarm"),
    ("service", "swarm"),
    ("secret", "swarm"),
    ("config", "swarm"),
    ("stack", "swarm"),
    ("swarm", "swarm"),
];

/// The text without what changes from run to run: ids, digests, addresses, times, durations, the scratch directory.
#[must_use]
pub fn plain(text: &str, dir: &str) -> String {
    let text = text.replace(dir, "DIR");
    let word = |word: &str| -> String {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let core = core.strip_prefix("sha256:").unwrap_or(core);
        let hex = core.len() >= 12 && core.bytes().all(|b| b.is_ascii_hexdigit());
        if hex { word.replace(core, "ID") } else { word.to_owned() }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
