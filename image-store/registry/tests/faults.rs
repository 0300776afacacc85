//! Faults on the way: what is refused, what is borne, and in whose words.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_oci::Digest;
use berth_registry::{Credentials, ErrorKind, LayerState, PushOptions, RegistryError};
use support::{Answer, Blobs, FakeRegistry, Host, Log, Request, amd64, host, image, layer, noise};

const NOBODY: Credentials = Credentials::Anonymous;

fn sample() -> Blobs {
    image("amd64", &[layer("big", &noise(3_000_000, 7)), layer("small", b"small")])
}

async fn pull(host: &Host, registry: &FakeRegistry) -> Result<berth_registry::Pulled, RegistryError> {
    host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await
}

/// Waits until some of a large blob is on the disk.
async fn begun(host: &Host) {
    let directory = host.dir.path().join("content/ingest");
    let some = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|e| e.metadata().is_ok_and(|m| m.len() > 50_000))
    };
    while !std::fs::read_dir(&directory).unwrap().any(some) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense_are_refused() {
    let made = sample();
    let schema1 = r#"{"schemaVersion":1,"name":"x","tag":"latest","fsLayers":[],"history":[]}"#;
    let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let manifest = String::from_utf8(made.blobs[&made.manifest.digest].clone()).unwrap();
    let huge_layer =
        manifest.replace(&format!("\"size\": {}", made.layers[1].size), "\"size\": 18446744073709551615");
    let many = format!("[{}]", vec!["{}"; 10_000].join(","));
    let cases: Vec<(&str, Answer, ErrorKind, &str)> = vec![
        ("no JSON", Answer::new(200, "<html>welcome</html>"), ErrorKind::Internal, "not a manifest"),
        ("empty", Answer::new(200, ""), ErrorKind::Internal, "not a manifest"),
        (
            "cut JSON",
            Answer::new(200, &manifest[..manifest.len() / 2]),
            ErrorKind::Internal,
            "not a manifest",
        ),
        ("JSON of something else", Answer::new(200, many), ErrorKind::Internal, "not a manifest"),
        ("deep JSON", Answer::new(200, "[".repeat(1 << 20)), ErrorKind::Internal, "not a manifest"),
        (
            "no digest",
            Answer::new(200, manifest.replace("sha256:", "sha999:")),
            ErrorKind::Internal,
            "digest",
        ),
        ("impossible size", Answer::new(200, huge_layer), ErrorKind::Unavailable, "unexpected EOF"),
        (
            "schema 1",
            Answer::new(200, schema1).header("Content-Type", prettyjws),
            ErrorKind::InvalidParameter,
            "schema 1, which is no longer supported",
        ),
        (
            "redirected for ever",
            Answer::new(307, "").header("Location", "/v2/x/manifests/latest"),
            ErrorKind::Unavailable,
            "redirect",
        ),
        ("teapot", Answer::new(418, "short and stout"), ErrorKind::Unavailable, "418: short and stout"),
    ];
    for (what, answer, kind, text) in cases {
        let answer = Mutex::new(Some(answer));
        let registry = FakeRegistry::of(&made, move |r| {
            let mut answer = answer.lock().unwrap();
            if !r.path.contains("/manifests/") {
                return None;
            }
            let again = answer.as_ref().map(|a| {
                a.headers
                    .iter()
                    .fold(Answer::new(a.status, a.body.clone()), |n, (k, v)| n.header(k, v.as_str()))
            });
            std::mem::replace(&mut *answer, again)
        });
        let host = host();
        let error = pull(&host, &registry).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(text), "{what}: {error}");
        assert!(registry.requests.lock().unwrap().len() < 30, "{what}: it went on and on");
        assert!(host.store.images().list(true).unwrap().is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_loop_ends() {
    let tokens = FakeRegistry::start(|_| Answer::new(200, r#"{"token":"worthless","expires_in":3600}"#));
    let made = sample();
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host);
    for challenge in
        [challenge.as_str(), "Basic realm=\"r\"", "", "Negotiate", "Bearer realm=\"not an address\""]
    {
        let stated = challenge.to_owned();
        let registry = FakeRegistry::of(&made, move |_| {
            Some(Answer::new(401, "").header("WWW-Authenticate", stated.clone()))
        });
        let captain = Credentials::Basic { username: "captain".into(), password: "ahoy".into() };
        let pulled = host().registry.pull(&registry.reference("x"), &amd64(), &captain, |_| {}).await;
        let error = pulled.unwrap_err();
        assert!(!matches!(error.kind(), ErrorKind::NotFound), "{challenge}: {error}");
        assert!(registry.count("") <= 3, "{challenge}: {:?}", registry.requests.lock().unwrap());
    }
    assert!(tokens.count("") <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_the_middle_is_renewed() {
    let made = sample();
    let given = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&given);
    let tokens = FakeRegistry::start(move |_| {
        let n = number.fetch_add(1, Ordering::SeqCst) + 1;
        Answer::new(200, format!(r#"{{"token":"t{n}","expires_in":3600}}"#))
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host);
    // The first token is good for the manifests alone.
    let registry = FakeRegistry::of(&made, move |r| {
        let token = r.headers.get("authorization").map(String::as_str);
        let good = token == Some("Bearer t2") || token == Some("Bearer t1") && r.path.contains("/manifests/");
        (!good).then(|| Answer::new(401, "").header("WWW-Authenticate", challenge.clone()))
    });
    pull(&host(), &registry).await.unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 2, "one renewal for all that were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_claim_to_last_for_ever() {
    let made = sample();
    let tokens =
        FakeRegistry::start(|_| Answer::new(200, format!(r#"{{"token":"good","expires_in":{}}}"#, u64::MAX)));
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host);
    let registry = FakeRegistry::of(&made, move |request| {
        let good = request.headers.get("authorization").map(String::as_str) == Some("Bearer good");
        (!good).then(|| Answer::new(401, "").header("WWW-Authenticate", challenge.clone()))
    });
    pull(&host(), &registry).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_drip_is_borne_and_can_be_left() {
    let made = sample();
    let (big, bytes) = (made.layers[0].digest.clone(), made.blobs[&made.layers[0].digest].clone());
    let registry = FakeRegistry::of(&made, move |r| {
        r.path
            .contains(big.as_str())
            .then(|| Answer { drip: Some(Duration::from_millis(4)), ..Answer::new(200, bytes.clone()) })
    });
    let host = host();
    tokio::select! {
        pulled = pull(&host, &registry) => panic!("it is not that fast: {pulled:?}"),
        () = begun(&host) => {}
    }
    let log = Log::default();
    host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, log.listener()).await.unwrap();
    assert!(
        registry.count("bytes=") > 0,
        "the second goes on where the first was left: {:?}",
        registry.requests.lock().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_share_the_work() {
    let made = sample();
    let (big, bytes) = (made.layers[0].digest.clone(), made.blobs[&made.layers[0].digest].clone());
    let path = big.clone();
    let registry = FakeRegistry::of(&made, move |r| {
        r.path
            .contains(path.as_str())
            .then(|| Answer { drip: Some(Duration::from_millis(4)), ..Answer::new(200, bytes.clone()) })
    });
    let (host, log) = (host(), Log::default());
    let reference = registry.reference("x");
    let platform = amd64();
    let one = host.registry.pull(&reference, &platform, &NOBODY, |_| {});
    let two = async {
        begun(&host).await;
        host.registry.pull(&reference, &platform, &NOBODY, log.listener()).await
    };
    let (one, two) = tokio::join!(one, two);
    assert_eq!(one.unwrap().id, two.unwrap().id);
    assert_eq!(registry.count(&format!("blobs/{big}")), 1);
    let words = log.layer(&big);
    assert!(
        words.contains(&"Downloading".to_owned()) && words.contains(&"Pull complete".to_owned()),
        "{words:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_pulls_may_leave() {
    let made = sample();
    let (big, bytes) = (made.layers[0].digest.clone(), made.blobs[&made.layers[0].digest].clone());
    let registry = FakeRegistry::of(&made, move |r| {
        r.path
            .contains(big.as_str())
            .then(|| Answer { drip: Some(Duration::from_millis(4)), ..Answer::new(200, bytes.clone()) })
    });
    let host = host();
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let one = async {
        tokio::select! {
            pulled = pull(&host, &registry) => panic!("it is not that fast: {pulled:?}"),
            _ = left => {}
        }
    };
    let two = async {
        begun(&host).await;
        let second = pull(&host, &registry);
        tokio::pin!(second);
        // It runs up to where it waits for the first; then that one leaves.
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut second).await.is_err());
        leave.send(()).unwrap();
        second.await
    };
    let ((), two) = tokio::join!(one, two);
    two.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_pull_brought_in_is_kept() {
    let made = sample();
    let big = made.layers[0].digest.clone();
    let registry = FakeRegistry::of(&made, move |r| {
        if r.path.contains(big.as_str()) {
            std::thread::sleep(Duration::from_secs(30));
        }
        None
    });
    let host = host();
    let small = async {
        while !host.store.content().contains(&made.layers[1].digest) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        pulled = pull(&host, &registry) => panic!("it is not that fast: {pulled:?}"),
        () = small => {}
    }
    host.store.gc().unwrap();
    assert!(host.store.content().contains(&made.layers[1].digest), "the small layer is under a lease");
}

/// A registry that takes uploads, and cuts the first PATCH of a large blob.
#[derive(Default)]
struct Uploads {
    parts: Mutex<Vec<u8>>,
    blobs: Mutex<Vec<Digest>>,
    cuts: AtomicUsize,
    /// Whether it forgets what it had when asked.
    forgetful: bool,
}

impl Uploads {
    fn answer(&self, request: &Request) -> Answer {
        let here = || Answer::new(202, "").header("Location", "/v2/x/blobs/uploads/1?state=s");
        let mut parts = self.parts.lock().unwrap();
        match (request.method.as_str(), request.path.as_str()) {
            ("HEAD", _) => Answer::new(404, ""),
            ("POST", _) => {
                parts.clear();
                here()
            }
            ("PATCH", _) => {
                let stated = request
                    .headers
                    .get("content-range")
                    .map(|r| r.split('-').next().unwrap().parse().unwrap());
                assert_eq!(stated.unwrap_or(0), parts.len(), "it goes on where it was");
                if self.cuts.fetch_add(1, Ordering::SeqCst) == 0 {
                    parts.extend(&request.body[..1_000_000]);
                    return Answer::new(503, "try later");
                }
                parts.extend(&request.body);
                here()
            }
            ("GET", _) if self.forgetful => Answer::new(404, ""),
            ("GET", _) => here().header("Range", format!("0-{}", parts.len() - 1)),
            ("PUT", path) if path.contains("digest=") => {
                parts.extend(&request.body);
                let stated = path.split("digest=").nth(1).unwrap().replace("%3A", ":");
                let digest = Digest::of(&parts);
                if digest.as_str() != stated {
                    return Answer::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                self.blobs.lock().unwrap().push(digest);
                Answer::new(201, "")
            }
            _ => Answer::new(201, ""),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_goes_on_where_it_was_or_begins_anew() {
    for forgetful in [false, true] {
        let made = sample();
        let source = FakeRegistry::of(&made, |_| None);
        let host = host();
        pull(&host, &source).await.unwrap();
        let uploads = Arc::new(Uploads { forgetful, ..Uploads::default() });
        let taker = Arc::clone(&uploads);
        // One upload at a time: the fake has one shelf.
        let registry = FakeRegistry::start(move |r| taker.answer(r));
        let config = berth_registry::RegistryConfig {
            concurrency: 1,
            back_off: Duration::from_millis(1),
            ..Default::default()
        };
        let client = berth_registry::Registry::new(host.store.clone(), config);
        let log = Log::default();
        client
            .push(&registry.reference("x"), &made.config, &NOBODY, &PushOptions::default(), log.listener())
            .await
            .unwrap();
        let there = uploads.blobs.lock().unwrap().clone();
        assert_eq!(there.len(), 3, "two layers and the configuration");
        assert_eq!(registry.count("PATCH"), 2, "{:?}", registry.requests.lock().unwrap());
        assert_eq!(registry.count("POST"), if forgetful { 4 } else { 3 });
        assert!(log.layer(&made.layers[0].digest).contains(&LayerState::Pushed.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_says_what_the_index_says() {
    let registry = FakeRegistry::start(|request| match request.path.as_str() {
        "/v1/search?q=app&n=2" => Answer::new(
            200,
            r#"{"num_results":1,"results":[{"name":"team/app","description":"An\napp","star_count":7,
                "is_official":true,"is_automated":false},{"name":"b"},{"name":"c"}]}"#,
        ),
        "/v1/search?q=bad&n=2" => Answer::new(200, "<html>"),
        "/v1/search?q=busy&n=2" => Answer::new(500, ""),
        _ => Answer::new(404, ""),
    });
    let host = host();
    let search =
        async |term: &str| host.registry.search(&format!("{}/{term}", registry.host), 2, &NOBODY).await;
    let found = search("app").await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].name.as_str(), found[0].star_count, found[0].is_official), ("team/app", 7, true));
    assert!(search("bad").await.unwrap_err().to_string().contains("makes no sense"));
    assert_eq!(search("busy").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = search("else").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("cannot be searched"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_downloaded_or_it_is_said_why_not() {
    let server = FakeRegistry::start(|request| match request.path.as_str() {
        "/root.tar" => Answer::new(200, noise(300_000, 5)),
        _ => Answer::new(404, "nothing here"),
    });
    let host = host();
    let download = host.registry.download(&format!("{}/root.tar", server.host)).await.unwrap();
    assert_eq!(download.length, Some(300_000));
    let bytes = tokio::task::spawn_blocking(move || {
        let (mut reader, mut bytes) = (download.bytes, Vec::new());
        std::io::Read::read_to_end(&mut reader, &mut bytes).map(|_| bytes)
    });
    assert_eq!(bytes.await.unwrap().unwrap(), noise(300_000, 5));
    let error = host.registry.download(&format!("{}/gone", server.host)).await.err().unwrap().to_string();
    let words = format!("failed to GET {}/gone with status 404 Not Found: nothing here", server.host);
    assert_eq!(error, words.replace("GET ", "GET http://"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_cut_while_it_compresses_goes_on_from_the_store() {
    let (patches, uploaded) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, kept) = (Arc::clone(&patches), Arc::clone(&uploaded));
    let registry = FakeRegistry::start(move |request| match request.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" => Answer::new(202, "").header("Location", "/v2/x/blobs/uploads/1"),
        "PATCH" if count.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(500, ""),
        "PATCH" => {
            kept.lock().unwrap().clone_from(&request.body);
            Answer::new(202, "").header("Location", "/v2/x/blobs/uploads/1")
        }
        _ => Answer::new(201, ""),
    });
    let host = host();
    let (tar, diff_id) = layer("file", &noise(3_000_000, 9));
    let local = host.store.import(&tar[..], berth_oci::ImageConfig::new(&amd64()), None, None).unwrap();
    let options = PushOptions::default();
    host.registry.push(&registry.reference("x"), &local, &NOBODY, &options, |_| {}).await.unwrap();
    assert!(patches.load(Ordering::SeqCst) >= 2);
    let layer = host.store.images().get(&local).unwrap().unwrap().layers[0].clone();
    let blob = host.store.layers().blobs(&layer).unwrap().remove(0);
    assert_eq!(Digest::of(&uploaded.lock().unwrap()), blob.digest, "{diff_id}");
}
