//! A network of its own, with a cable to ours that loses what it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// It is taken down when this is dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
    /// Our end of the cable.
    cable: String,
    /// Where a server in it is reached.
    pub(crate) address: SocketAddr,
}

impl Namespace {
    /// Sets one up; why that is not possible here.
    pub(crate) fn new() -> Result<Self, String> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let (process, number) = (process::id(), NEXT.fetch_add(1, Relaxed));
        // Networks of four addresses in a range that is nobody's.
        let net = |host| Ipv4Addr::new(198, 18, number, host);
        let (ours, theirs) = (format!("{}/30", net(1)), format!("{}/30", net(2)));
        let (cable, end) = (format!("sf{process}-{number}a"), format!("sf{process}-{number}b"));
        let name = format!("steadfast-{process}-{number}");
        run(&["ip", "netns", "add", &name])?;
        // From here on whatever is there is taken down again.
        let address = SocketAddr::from((net(2), 6_379));
        let namespace = Self { name, cable, address };
        let cable = &namespace.cable;
        run(&["ip", "link", "add", cable, "type", "veth", "peer", "name", &end])?;
        run(&["ip", "link", "set", &end, "netns", &namespace.name])?;
        run(&["ip", "addr", "add", &ours, "dev", cable])?;
        run(&["ip", "link", "set", cable, "up"])?;
        namespace.inside(&["ip", "addr", "add", &theirs, "dev", &end])?;
        namespace.inside(&["ip", "link", "set", &end, "up"])?;
        namespace.inside(&["nft", "add table inet loss"])?;
        let chain = "add chain inet loss in { type filter hook input priority 0; }";
        namespace.inside(&["nft", chain])?;
        Ok(namespace)
    }

    /// Of what we send so many in a hundred are lost from now on.
    pub(crate) fn lose(&self, percent: u32) {
        let rule = match percent {
            100.. => "add rule inet loss in drop".to_owned(),
            _ => format!("add rule inet loss in numgen random mod 100 < {percent} drop"),
        };
        self.inside(&["nft", "flush chain inet loss in"]).unwrap();
        if percent > 0 {
            self.inside(&["nft", &rule]).unwrap();
        }
    }

    fn inside(&self, words: &[&str]) -> Result<(), String> {
        run(&[&["ip", "netns", "exec", self.name.as_str()], words].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with its other end, but later.
        let _ = run(&["ip", "link", "del", &self.cable]);
        let _ = run(&["ip", "netns", "del", &self.name]);
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    let told = words.join(" ");
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("{told}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{told}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
