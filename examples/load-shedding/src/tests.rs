use castling_sdk::testing::{self, Exchange, FakePeer};

use super::*;

fn shedding(more: &str) -> Shedding {
    let config = format!(
        r#"{{"permits": "busy", "priority": "$http_x_priority", "most": {{"high": 3, "low": 2}}, "otherwise": "low",
            "retry_after": "2s", "zone": "eu-1", "spill_at": 4{more}}}"#
    );
    Shedding::configure(testing::config(&config).unwrap()).unwrap()
}

fn request(priority: &str) -> Exchange {
    let exchange = Exchange::get("/").upstream("app", "");
    exchange
        .header("x-priority", priority)
        .grant_upstream("static")
}

#[test]
fn what_is_least_important_is_shed_first() {
    let (plugin, mut all) = (shedding(""), Vec::new());
    for (priority, passes) in [
        ("low", true),
        ("what is not in the config", true),
        ("low", false),
        ("high", true),
        ("high", false),
    ] {
        let mut exchange = request(priority);
        let verdict = plugin.preaccess(exchange.request()).unwrap();
        let shed = Response::status(503).header("retry-after", "2");
        let expected = if passes {
            Verdict::Continue
        } else {
            shed.into()
        };
        assert_eq!(verdict, expected, "{priority}");
        assert_eq!(exchange.request().var("shed").is_none(), passes);
        all.push(exchange);
    }
    // Permits are the requests'.
    all.clear();
    assert_eq!(
        plugin.preaccess(request("low").request()).unwrap(),
        Verdict::Continue
    );
}

#[test]
fn another_upstream_takes_what_is_too_much() {
    let plugin = shedding(r#", "overflow": "static""#);
    let mut all: Vec<_> = (0..3).map(|_| request("low")).collect();
    for exchange in &mut all {
        assert_eq!(
            plugin.preaccess(exchange.request()).unwrap(),
            Verdict::Continue
        );
    }
    let chosen: Vec<_> = all.iter().map(Exchange::chosen_upstream).collect();
    assert_eq!(chosen, [None, None, Some("static".to_owned())]);
}

#[test]
fn near_peers_are_asked_while_they_have_room() {
    let [near, far] = [["eu-1"], ["eu-2"]].map(|tags| FakePeer::at("a:80").tags(tags));
    let chosen = |peers: &[&FakePeer]| {
        let peers = peers.iter().map(|peer| (*peer).clone());
        let mut exchange = peers.fold(Exchange::get("/"), Exchange::peer);
        let peers = exchange.peers();
        shedding("").balance(exchange.request(), &peers)
    };
    let busy = |peer: &FakePeer, active| peer.clone().active(active);
    assert_eq!(chosen(&[&far, &busy(&near, 3)]), Some(1));
    assert_eq!(chosen(&[&busy(&far, 3), &busy(&near, 4)]), Some(0));
    assert_eq!(chosen(&[&busy(&far, 5), &busy(&near, 4)]), Some(1));
    assert_eq!(chosen(&[&far, &busy(&near, 7).weight(2)]), Some(1));
    assert_eq!(chosen(&[&far, &near.clone().cooling()]), Some(0));
    assert_eq!(chosen(&[&far, &near.clone().tried()]), Some(0));
    assert_eq!(chosen(&[&busy(&near, 2), &busy(&near, 1), &far]), Some(1));
    assert_eq!(chosen(&[&far.clone().tried()]), None);
}

#[test]
fn peers_that_are_alike_have_turns() {
    let near = || FakePeer::at("a:80").tags(["eu-1"]);
    let mut exchange = Exchange::get("/").peer(near()).peer(near());
    let (mut plugin, peers) = (shedding(""), exchange.peers());
    let chosen: Vec<_> = (0..4)
        .filter_map(|_| plugin.balance(exchange.request(), &peers))
        .collect();
    assert_eq!(chosen, [1, 0, 1, 0]);
}

#[test]
fn a_config_that_sheds_all_is_refused() {
    let config = r#"{"permits": "busy", "priority": "", "most": {"low": 0}, "otherwise": "low",
        "retry_after": "2s", "zone": "", "spill_at": 4}"#;
    assert!(Shedding::configure(testing::config(config).unwrap()).is_err());
}
