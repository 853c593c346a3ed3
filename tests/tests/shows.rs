//! The shows of `docs/SHOWS.md`, small: no request of theirs may fail that is not accounted for, whatever the machine
//! does meanwhile. Times are claimed by `cargo xtask show` alone.

use std::time::Duration;

use castling_tests::show::{
    Progress, Report, chaos, coalesce, greedy, idle, reload_storm, reload_time, states, upgrades,
    upstreams,
};

#[track_caller]
fn passes(report: &Report) {
    assert!(report.passed(), "{report}");
}

/// A load that leaves something of the machine to the tests beside it.
fn few_clients() -> reload_storm::Options {
    reload_storm::Options {
        lasts: Duration::from_secs(2),
        at_most: Duration::from_secs(30),
        requests: 500,
        claims_rate: false,
        clients: 8,
        new_clients: 4,
        idle_clients: 16,
        other_clients: 2,
        tunnels: 40,
        ..reload_storm::Options::default()
    }
}

#[test]
fn a_storm_of_reloads_fails_no_request_and_mixes_no_response() {
    passes(&reload_storm::run(&few_clients(), &mut Progress::silent()));
}

#[test]
fn upgrades_in_a_row_fail_no_request() {
    let options = upgrades::Options {
        upgrades: 3,
        requests_between: 200,
        load: few_clients(),
    };
    passes(&upgrades::run(&options, &mut Progress::silent()));
}

#[test]
fn what_fails_in_chaos_is_accounted_for_and_nothing_grows() {
    let options = chaos::Options {
        lasts: Duration::from_millis(2100),
        kill_every: Duration::from_millis(700),
        warm_up: Duration::from_millis(700),
        clients: 8,
        new_clients: 4,
    };
    match chaos::run(&options, &mut Progress::silent()) {
        Ok(report) => passes(&report),
        Err(why) => eprintln!("SKIPPED chaos: {why}"),
    }
}

#[test]
fn idle_connections_cost_little_and_are_closed_cleanly_by_a_reload() {
    let options = idle::Options {
        connections: 2000,
        // Twice the goal: a few thousand share what is there once.
        goal_bytes: 8192,
        watch: Duration::from_millis(500),
        claims_latency: false,
    };
    passes(&idle::run(&options, &mut Progress::silent()));
}

#[test]
fn event_streams_keep_their_state_and_no_instance() {
    let options = states::Options {
        streams: 1000,
        rounds: 1,
        watch: Duration::from_millis(500),
        every: Duration::from_millis(400),
        claims: false,
    };
    passes(&states::run(&options, &mut Progress::silent()));
}

#[test]
fn misses_of_one_page_are_one_fetch_whoever_dies() {
    let options = coalesce::Options {
        clients: 100,
        workers: 2,
        claims_times: false,
    };
    passes(&coalesce::run(&options, &mut Progress::silent()));
}

#[test]
fn clients_that_read_nothing_fail_no_request_of_others() {
    let options = greedy::Options {
        clients: 30,
        body_bytes: 10_000_000,
        watch: Duration::from_millis(500),
    };
    passes(&greedy::run(&options, &mut Progress::silent()));
}

#[test]
fn ten_plugins_are_reloaded() {
    let options = reload_time::Options {
        reloads: 3,
        goal: None,
    };
    passes(&reload_time::run(&options, &mut Progress::silent()));
}

/// A small part of the show of upstreams.
fn part_of_upstreams(part: u64) -> upstreams::Options {
    upstreams::Options {
        part: Some(part),
        lasts: Duration::from_secs(2),
        rate: 200,
        claims_times: false,
        requests: 2000,
        peers: 100,
        // Twice the goal: a hundred share what is there once.
        peer_bytes: 8192,
    }
}

#[test]
fn peers_that_die_or_are_overloaded_cost_no_request_more_than_they_must() {
    for part in [1, 3] {
        let options = part_of_upstreams(part);
        passes(&upstreams::run(&options, &mut Progress::silent()));
    }
}

#[test]
fn policies_share_requests_out_as_they_are_defined() {
    let options = part_of_upstreams(2);
    passes(&upstreams::run(&options, &mut Progress::silent()));
}

#[test]
fn a_name_whose_addresses_change_fails_no_request() {
    let options = part_of_upstreams(4);
    passes(&upstreams::run(&options, &mut Progress::silent()));
}

#[test]
fn many_workers_have_one_prober() {
    let options = part_of_upstreams(5);
    passes(&upstreams::run(&options, &mut Progress::silent()));
}
