//! Sessions by cookie: each stays at its peer over a reload, an upgrade and the death of another peer; those of a peer that dies move
//! once.

use super::super::asks::{ask, told_apart};
use super::super::fleet::Fleet;
use super::super::tally::Tally;
use super::super::{Options, gateway};
use crate::Proxy;
use crate::show::Report;

const PEERS: usize = 5;
const SESSIONS: usize = 200;
const WORKERS: usize = 4;
const CONNECTIONS: usize = 16;

const STICKY: &str = r#"
[upstreams.app.sticky]
cookie = "route"
secret = "a secret that nobody can guess"
"#;

/// Clients with a session each.
struct Sessions {
    /// Peer that has served each at last.
    peers: Vec<usize>,
    cookies: Vec<String>,
    turn: usize,
    failures: Vec<String>,
}

/// Changes by a round of requests.
struct Round {
    /// Sessions that another peer has served than before, by the peer before.
    moved: Vec<usize>,
    /// Cookies that were set.
    set: usize,
}

impl Sessions {
    fn begin(proxy: &Proxy) -> Self {
        let fields = vec![String::new(); SESSIONS];
        let (answers, failures) = told_apart(ask(proxy.address(), &fields, CONNECTIONS, 0));
        Self {
            peers: answers.iter().map(|answer| answer.peer).collect(),
            cookies: { answers.into_iter() }
                .map(|answer| answer.cookie.unwrap_or_default())
                .collect(),
            turn: 0,
            failures,
        }
    }

    /// A request of each, in another connection than before.
    fn round(&mut self, proxy: &Proxy) -> Round {
        self.turn += 3;
        let field = |cookie: &String| format!("Cookie: {cookie}\r\n");
        let fields: Vec<String> = self.cookies.iter().map(field).collect();
        let answers = ask(proxy.address(), &fields, CONNECTIONS, self.turn);
        let mut round = Round {
            moved: Vec::new(),
            set: 0,
        };
        for (session, answer) in answers.into_iter().enumerate() {
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    self.failures.push(failure);
                    continue;
                }
            };
            let before = std::mem::replace(&mut self.peers[session], answer.peer);
            if before != answer.peer {
                round.moved.push(before);
            }
            if let Some(cookie) = answer.cookie {
                self.cookies[session] = cookie;
                round.set += 1;
            }
        }
        round
    }

    fn count_of(&self, peer: usize) -> usize {
        self.peers.iter().filter(|it| **it == peer).count()
    }

    /// Two rounds in which nothing moves.
    fn claim_stay(&mut self, report: &mut Report, proxy: &Proxy, when: &str) {
        let rounds = [self.round(proxy), self.round(proxy)];
        let moved: usize = rounds.iter().map(|round| round.moved.len()).sum();
        let set: usize = rounds.iter().map(|round| round.set).sum();
        report.claim(
            format!("2: sticky, {when}: 0 of {SESSIONS} sessions move, 0 get another cookie"),
            format!("{moved} and {set} in {} requests", 2 * SESSIONS),
            moved == 0 && set == 0,
        );
    }
}

pub(super) fn run(_: &Options, report: &mut Report, tally: &mut Tally) {
    let fleet = Fleet::start(PEERS);
    let peers = fleet.listed(0..PEERS);
    let mut proxy = gateway::start(WORKERS, &format!("peers = [{peers}]\n{STICKY}"));
    let mut sessions = Sessions::begin(&proxy);
    let counts: Vec<usize> = (0..PEERS).map(|peer| sessions.count_of(peer)).collect();
    let begun = sessions.cookies.iter().filter(|it| !it.is_empty()).count();
    let (most, share) = (2 * WORKERS, SESSIONS / PEERS);
    report.claim(
        format!("2: sticky: {SESSIONS} sessions, shared out in turns, give or take {most}"),
        format!("{begun}, {counts:?}"),
        begun == SESSIONS && counts.iter().all(|it| it.abs_diff(share) <= most),
    );
    if sessions.peers.len() < SESSIONS {
        return tally.add("sticky", SESSIONS, sessions.failures);
    }
    sessions.claim_stay(report, &proxy, "at first");
    proxy.reload().expect_success();
    sessions.claim_stay(report, &proxy, "after a reload");
    proxy.upgrade(&[]).expect_success();
    sessions.claim_stay(report, &proxy, "after an upgrade");
    fleet.kill(0);
    let own = sessions.count_of(0);
    let round = sessions.round(&proxy);
    let strays = round.moved.iter().filter(|from| **from != 0).count();
    report.claim(
        "2: sticky, a peer dies: its sessions move, each with another cookie, and no other",
        format!(
            "{} of its {own}, {strays} of others, {} cookies",
            round.moved.len() - strays,
            round.set
        ),
        round.moved.len() == own && strays == 0 && round.set == own && sessions.count_of(0) == 0,
    );
    sessions.claim_stay(report, &proxy, "then");
    fleet.revive(0);
    sessions.claim_stay(report, &proxy, "when it is back");
    proxy.reload().expect_success();
    sessions.claim_stay(report, &proxy, "after another reload");
    tally.add("sticky", 14 * SESSIONS, sessions.failures);
}
