//! Measurements, not tests: `cargo test -p berth-network --test measure -- --ignored --nocapture --test-threads 1`

mod support;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use berth_network::EndpointRequest;
use support::{HOST, Server, ask, port, request, world};

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let [least, middle, most] = [0, times.len() / 2, times.len() - 1].map(|n| times[n]);
    eprintln!("{what:>28}: min {least:>10.1?}  median {middle:>10.1?}  max {most:>10.1?}");
}

#[test]
#[ignore = "a measurement"]
fn attach_and_detach() {
    for published in [false, true] {
        world(|w| {
            let net = w.controller("meas");
            let bridge = net.network("bridge").unwrap();
            let [mut make, mut attach, mut first, mut detach] = [const { Vec::new() }; 4];
            for n in 0..30 {
                let start = Instant::now();
                let sandbox = net.new_sandbox().unwrap();
                make.push(start.elapsed());
                let ports = if published { vec![port(80, None, 8080 + n)] } else { vec![] };
                let wish = EndpointRequest { ports, ..request("c") };
                let start = Instant::now();
                let end = net.attach(sandbox.as_fd(), &bridge.id, wish).unwrap();
                if n == 0 {
                    eprintln!("first attach: {:?}", start.elapsed());
                } else {
                    attach.push(start.elapsed());
                }
                let server = Server::start(sandbox.as_fd(), 80);
                let start = Instant::now();
                if published { ask(HOST, 8080 + n) } else { ask(end.ipv4.unwrap(), 80) }.unwrap();
                first.push(start.elapsed());
                drop(server);
                let start = Instant::now();
                net.detach_all("c").unwrap();
                detach.push(start.elapsed());
                drop(sandbox);
                std::thread::sleep(Duration::from_millis(60));
            }
            eprintln!("published ports: {published}");
            report("sandbox", &mut make);
            report("attach", &mut attach);
            report("first answer", &mut first);
            report("detach", &mut detach);
            net.shutdown(true).unwrap();
        });
    }
}

#[test]
#[ignore = "a measurement"]
fn readiness_under_load() {
    let slow: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|thread| {
                scope.spawn(move || {
                    let mut slow = 0;
                    world(|w| {
                        let net = w.controller("load");
                        let bridge = net.network("bridge").unwrap();
                        for n in 0..20 {
                            let sandbox = net.new_sandbox().unwrap();
                            let end = net.attach(sandbox.as_fd(), &bridge.id, request("c")).unwrap();
                            let state = support::ip(&format!("-d link show {}", end.host_ifname));
                            let start = Instant::now();
                            let echo = support::udp_echo(sandbox.as_fd(), 53, 1);
                            let answer = support::ask_udp(end.ipv4.unwrap(), 53);
                            if answer.is_err() || start.elapsed() > Duration::from_millis(100) {
                                slow += 1;
                                eprintln!("{thread}/{n}: {answer:?} {:?}\n{state}", start.elapsed());
                                eprintln!(
                                    "now: {}",
                                    support::ip(&format!("-d link show {}", end.host_ifname))
                                );
                                eprintln!("neigh: {}", support::ip("neigh"));
                                // The echo answers one datagram: let it end.
                                support::inside(sandbox.as_fd(), || support::ask_udp(end.ipv4.unwrap(), 53))
                                    .ok();
                            }
                            echo.join().unwrap();
                            net.detach("c", &bridge.id, None).unwrap();
                        }
                        net.shutdown(true).unwrap();
                    });
                    slow
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    eprintln!("slow: {slow} of 120");
}
