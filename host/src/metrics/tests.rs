use proptest::prelude::*;

use super::*;

/// A recorder of a zone with this many rows; each is another worker.
fn workers(count: u32) -> Vec<Recorder> {
    let zone = MetricsZone::create(4096).unwrap();
    let open = |row| {
        zone.take_row(row).unwrap();
        let file = zone.descriptor().try_clone_to_owned().unwrap();
        let worker = Recorder::new(MetricsZone::open(file, 4096).unwrap(), Some(row), 1);
        worker.serve();
        worker
    };
    (0..count).map(open).collect()
}

/// Recorder of this worker as one of another generation that does not serve yet.
fn of_generation(generation: u64, recorder: Recorder) -> Recorder {
    Recorder {
        stamps: Box::leak(Box::new(Stamps::new(generation))),
        ..recorder
    }
}

fn plugin(recorder: Recorder, limit: u32) -> InstanceMetrics {
    InstanceMetrics::new(&PluginMetrics::new(
        recorder,
        &Arc::from("p"),
        "my-plugin",
        limit,
    ))
}

fn list(texts: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for text in texts {
        list.extend_from_slice(&castling_abi::metric::text_head(text.as_bytes()).unwrap());
        list.extend_from_slice(text.as_bytes());
    }
    list
}

fn definition(kind: MetricKind, name: &str, labels: &[&str], bounds: &[f64]) -> Vec<u8> {
    let labels = list(labels);
    let lengths = [name.len(), 4, labels.len()];
    let mut bytes = castling_abi::metric::definition_head(kind, lengths)
        .unwrap()
        .to_vec();
    for part in [name.as_bytes(), b"Help", &labels] {
        bytes.extend_from_slice(part);
    }
    for bound in bounds {
        bytes.extend_from_slice(&bound.to_le_bytes());
    }
    bytes
}

/// The value of one line, by what stands before it.
fn value(recorder: &Recorder, series: &str) -> Option<f64> {
    let text = recorder.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn counters_of_all_workers_are_added_up() {
    let workers = workers(3);
    for (idx, worker) in workers.iter().enumerate() {
        let requests = worker.requests("web", "api");
        (0..=idx).for_each(|_| requests.count(http::StatusCode::NOT_FOUND));
        requests.count(http::StatusCode::from_u16(799).unwrap());
    }
    let series =
        |code| format!("castling_requests_total{{listener=\"web\",route=\"api\",code=\"{code}\"}}");
    for (code, expected) in [("2xx", 0.0), ("4xx", 6.0), ("other", 3.0)] {
        assert_eq!(value(&workers[0], &series(code)), Some(expected), "{code}");
    }
}

#[test]
fn gauges_are_sums_or_the_largest_and_end_with_their_worker() {
    let workers = workers(3);
    for (worker, level) in workers.iter().zip([-5.0, -2.0]) {
        worker.hooks("p", 1).quarantine.set(level);
        worker.requests_active().set(level);
    }
    let worst = |of: &Recorder| value(of, "castling_quarantine_state{plugin=\"p\"}");
    assert_eq!(worst(&workers[2]), Some(-2.0));
    assert_eq!(value(&workers[2], "castling_requests_active"), Some(-7.0));
    forget_gauges(workers[2].zone, 1);
    assert_eq!(worst(&workers[2]), Some(-5.0));
    forget_gauges(workers[2].zone, 0);
    assert_eq!(worst(&workers[2]), None);
    assert!(!workers[2].text().contains("castling_quarantine_state"));
}

#[test]
fn a_histogram_counts_up_to_each_bound() {
    let worker = workers(1)[0];
    let mut plugin = plugin(worker, 100);
    let bytes = definition(MetricKind::Histogram, "size", &["a"], &[1.0, 2.5]);
    let size = plugin.define(&bytes).unwrap();
    let series = plugin.series(size, &list(&["x"])).unwrap();
    for value in [0.5, 1.0, 2.0, 7.0] {
        plugin.observe(series, value).unwrap();
    }
    assert_eq!(
        plugin.observe(series, f64::NAN),
        Err(castling_abi::Status::BadArgument)
    );
    let text = worker.text();
    let family: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("castling_plugin_my_plugin_size"))
        .collect();
    assert_eq!(
        family,
        [
            "# HELP castling_plugin_my_plugin_size Help",
            "# TYPE castling_plugin_my_plugin_size histogram",
            "castling_plugin_my_plugin_size_bucket{plugin=\"p\",a=\"x\",le=\"1\"} 2",
            "castling_plugin_my_plugin_size_bucket{plugin=\"p\",a=\"x\",le=\"2.5\"} 3",
            "castling_plugin_my_plugin_size_bucket{plugin=\"p\",a=\"x\",le=\"+Inf\"} 4",
            "castling_plugin_my_plugin_size_sum{plugin=\"p\",a=\"x\"} 10.5",
            "castling_plugin_my_plugin_size_count{plugin=\"p\",a=\"x\"} 4",
        ]
    );
}

#[test]
fn beyond_the_limit_it_is_other_for_all_workers_together() {
    let workers = workers(2);
    let bytes = definition(MetricKind::Counter, "n_total", &["l"], &[]);
    let mut plugins = workers.iter().map(|worker| plugin(*worker, 10));
    let mut plugins = [plugins.next().unwrap(), plugins.next().unwrap()];
    for number in 0..40 {
        let plugin = &mut plugins[number % 2];
        let metric = plugin.define(&bytes).unwrap();
        let series = plugin
            .series(metric, &list(&[&number.to_string()]))
            .unwrap();
        plugin.add(series, 1.0).unwrap();
    }
    let name = "castling_plugin_my_plugin_n_total";
    assert_eq!(
        value(&workers[0], &format!("{name}{{plugin=\"p\",l=\"9\"}}")),
        Some(1.0)
    );
    assert_eq!(
        value(&workers[0], &format!("{name}{{plugin=\"p\",l=\"10\"}}")),
        None
    );
    assert_eq!(
        value(&workers[0], &format!("{name}{{plugin=\"p\",l=\"other\"}}")),
        Some(30.0)
    );
    let over = "castling_plugin_series_over_limit_total{plugin=\"p\"}";
    assert_eq!(value(&workers[0], over), Some(30.0));
}

#[test]
fn a_value_beyond_128_bytes_takes_no_memory_of_the_host() {
    let mut plugin = plugin(workers(1)[0], 1000);
    let metric = plugin
        .define(&definition(MetricKind::Counter, "n", &["l"], &[]))
        .unwrap();
    let cut = plugin.series(metric, &list(&[&"x".repeat(128)]));
    for number in 0..2000 {
        let value = format!("{}{number}", "x".repeat(16_000));
        assert_eq!(plugin.series(metric, &list(&[&value])), cut);
    }
    assert_eq!(plugin.remembered(), (1, 4 + 2 + 128));
    // Cut between characters.
    let even = plugin.series(metric, &list(&[&"ä".repeat(64)]));
    assert_eq!(plugin.series(metric, &list(&[&"ä".repeat(700)])), even);
    let odd = plugin.series(metric, &list(&[&format!("x{}", "ä".repeat(63))]));
    assert_eq!(
        plugin.series(metric, &list(&[&format!("x{}", "ä".repeat(64))])),
        odd
    );
    for bad in [
        list(&[""; 5000]),
        list(&["x".repeat(200).as_str(); 2]),
        vec![0xff; 500],
        [&[200, 0][..], &[0xff; 200]].concat(),
    ] {
        assert_eq!(
            plugin.series(metric, &bad),
            Err(castling_abi::Status::BadArgument)
        );
    }
    assert_eq!(plugin.remembered().0, 3);
}

#[test]
fn what_is_remembered_is_as_long_as_the_series_may_be() {
    let mut plugin = plugin(workers(1)[0], 20);
    let labels = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let wide = plugin
        .define(&definition(MetricKind::Counter, "wide", &labels, &[]))
        .unwrap();
    // Values of one series, since control characters are replaced, and another key each time.
    for number in 0..30 {
        let value = format!("{}{}", "x".repeat(120), char::from(number));
        plugin.series(wide, &list(&[value.as_str(); 8])).unwrap();
    }
    let (keys, bytes) = plugin.remembered();
    assert!(
        (1..30).contains(&keys) && bytes <= 20 * 160,
        "{keys} {bytes}"
    );
}

#[test]
fn values_that_are_one_series_are_remembered_up_to_the_limit() {
    let worker = workers(1)[0];
    let mut plugin = plugin(worker, 10);
    let metric = plugin
        .define(&definition(MetricKind::Counter, "n", &["l"], &[]))
        .unwrap();
    let control = |number: u32| char::from_u32(number).filter(|c| c.is_control() && *c != '\n');
    let controls: Vec<char> = (0..0xa0).filter_map(control).collect();
    for c in &controls {
        let value = c.to_string();
        let series = plugin.series(metric, &list(&[&value])).unwrap();
        assert!(series <= 10, "{series}");
        plugin.add(series, 1.0).unwrap();
    }
    let name = "castling_plugin_my_plugin_n";
    let count = |value: &str| value_of(&worker, name, value);
    let others = controls.len() as f64 - 10.0;
    assert_eq!(
        (count("\u{fffd}"), count("other")),
        (Some(10.0), Some(others))
    );
    let huge = list(&[&"x".repeat(20_000)]);
    assert_eq!(
        plugin.series(metric, &huge),
        Err(castling_abi::Status::BadArgument)
    );
    assert_eq!(
        plugin.define(&[0; 20_000]),
        Err(castling_abi::Status::BadArgument)
    );
}

fn value_of(recorder: &Recorder, name: &str, label: &str) -> Option<f64> {
    value(recorder, &format!("{name}{{plugin=\"p\",l=\"{label}\"}}"))
}

#[test]
fn long_labels_cost_more_of_the_limit_and_names_without_end_are_refused() {
    let worker = workers(1)[0];
    let mut plugin = plugin(worker, 20);
    let labels = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let wide = plugin
        .define(&definition(MetricKind::Counter, "wide", &labels, &[]))
        .unwrap();
    let long = "x".repeat(200);
    for _ in 0..100 {
        plugin.series(wide, &list(&[long.as_str(); 8])).unwrap();
    }
    assert_eq!(
        worker.zone.cells_used(),
        value(&worker, "castling_metrics_series").unwrap() as usize
    );
    let mut refused = 0;
    for number in 0..2000 {
        // A new instance each time, as with `isolation = "request"`.
        let name = format!("made_up_{number}");
        let shared = PluginMetrics::new(worker, &Arc::from("p"), "my-plugin", 20);
        let mut instance = InstanceMetrics::new(&shared);
        let result = instance.define(&definition(MetricKind::Counter, &name, &[], &[]));
        refused += usize::from(result == Err(castling_abi::Status::Limit));
    }
    assert_eq!(refused, 1001, "`wide` was one");
}

#[test]
fn definitions_that_are_not_valid_are_refused() {
    let mut plugin = plugin(workers(1)[0], 1000);
    let counter = |name: &str, labels: &[&str]| definition(MetricKind::Counter, name, labels, &[]);
    let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let mut no_kind = counter("a", &[]);
    no_kind[0] = 9;
    for bad in [
        counter("", &[]),
        counter("a-b", &[]),
        counter("a\n", &[]),
        counter("1a", &[]),
        counter(&"a".repeat(129), &[]),
        counter("a", &["le"]),
        counter("a", &["plugin"]),
        counter("a", &["__name__"]),
        counter("a", &["b\"} 1"]),
        counter("a", &["b", "b"]),
        counter("a", &nine),
        definition(MetricKind::Counter, "a", &[], &[1.0]),
        definition(MetricKind::Histogram, "a", &[], &[]),
        definition(MetricKind::Histogram, "a", &[], &[2.0, 1.0]),
        definition(MetricKind::Histogram, "a", &[], &[f64::NAN]),
        no_kind,
        vec![0; 15],
        vec![0xff; 64],
    ] {
        assert_eq!(
            plugin.define(&bad),
            Err(castling_abi::Status::BadArgument),
            "{bad:?}"
        );
    }
    let size = definition(MetricKind::Histogram, "size", &[], &[1.0]);
    assert_eq!(plugin.define(&size), Ok(0));
    assert_eq!(plugin.define(&size), Ok(0), "the same again");
    for taken in ["size", "size_sum", "size_bucket", "size_count"] {
        let refused = plugin.define(&counter(taken, &[]));
        assert_eq!(refused, Err(castling_abi::Status::BadArgument), "{taken}");
    }
    assert_eq!(
        plugin.series(7, &[]),
        Err(castling_abi::Status::BadArgument)
    );
    assert_eq!(
        plugin.series(0, &list(&["one too many"])),
        Err(castling_abi::Status::BadArgument)
    );
    assert_eq!(plugin.add(99, 1.0), Err(castling_abi::Status::BadArgument));
    for number in 1..64 {
        plugin.define(&counter(&format!("m{number}"), &[])).unwrap();
    }
    assert_eq!(
        plugin.define(&counter("m64", &[])),
        Err(castling_abi::Status::Limit)
    );
}

#[test]
fn each_kind_takes_what_suits_it() {
    let mut plugin = plugin(workers(1)[0], 1000);
    let mut series = |kind, name, bounds: &[f64]| {
        let metric = plugin.define(&definition(kind, name, &[], bounds)).unwrap();
        plugin.series(metric, &[]).unwrap()
    };
    let counter = series(MetricKind::Counter, "c", &[]);
    let gauge = series(MetricKind::Gauge, "g", &[]);
    let histogram = series(MetricKind::Histogram, "h", &[1.0]);
    assert!(plugin.add(counter, 0.5).is_ok() && plugin.add(counter, -1.0).is_err());
    assert!(plugin.add(counter, f64::INFINITY).is_err() && plugin.set(counter, 1.0).is_err());
    assert!(plugin.add(gauge, -1.0).is_ok() && plugin.set(gauge, 1.0).is_ok());
    assert!(plugin.observe(gauge, 1.0).is_err() && plugin.set(gauge, f64::NAN).is_err());
    assert!(plugin.add(histogram, 1.0).is_err() && plugin.observe(histogram, 1.0).is_ok());
}

#[test]
fn a_plugin_of_a_later_generation_may_make_another_thing_of_a_name() {
    let first = workers(1)[0];
    let generation = |number| {
        let recorder = of_generation(number, first);
        recorder.serve();
        recorder
    };
    let later = generation(2);
    let count = |recorder, bytes: &[u8]| {
        let mut plugin = plugin(recorder, 1000);
        let metric = plugin.define(bytes).unwrap();
        let series = plugin.series(metric, &[]).unwrap();
        plugin
            .add(series, 1.0)
            .or_else(|_| plugin.observe(series, 1.0))
            .unwrap();
    };
    let types = |text: &str| text.matches("# TYPE castling_plugin_my_plugin_x ").count();
    let histogram = |bounds: &[f64]| definition(MetricKind::Histogram, "x", &[], bounds);
    count(first, &definition(MetricKind::Counter, "x", &[], &[]));
    count(later, &histogram(&[1.0]));
    let text = first.text();
    assert!(
        text.contains("# TYPE castling_plugin_my_plugin_x histogram"),
        "{text}"
    );
    assert_eq!(types(&text), 1);
    // Other bounds, and back.
    let third = generation(3);
    count(third, &histogram(&[2.0, 3.0]));
    assert!(!third.text().contains("le=\"1\""));
    let fourth = generation(4);
    count(fourth, &histogram(&[1.0]));
    assert!(fourth.text().contains("x_bucket{plugin=\"p\",le=\"1\"} 2"));
    assert!(!fourth.text().contains("le=\"3\""));
}

#[test]
fn what_a_refused_generation_has_defined_changes_nothing() {
    let running = workers(1)[0];
    let mut counting = plugin(running, 1000);
    let bounds = |bounds: &[f64]| definition(MetricKind::Histogram, "h", &[], bounds);
    let counter = definition(MetricKind::Counter, "x", &[], &[]);
    for bytes in [&counter, &bounds(&[1.0])] {
        let metric = counting.define(bytes).unwrap();
        counting.series(metric, &[]).unwrap();
    }
    let before = running.text();
    let refused = of_generation(2, running);
    let mut configured = plugin(refused, 1000);
    for bytes in [
        definition(MetricKind::Gauge, "x", &[], &[]),
        bounds(&[2.0]),
        definition(MetricKind::Counter, "new", &[], &[]),
    ] {
        let metric = configured.define(&bytes).unwrap();
        configured.series(metric, &[]).unwrap();
    }
    assert_eq!(
        lines_but_of_the_table(&running.text()),
        lines_but_of_the_table(&before)
    );

    // The next attempt has the same number, and serves.
    let next = of_generation(2, running);
    let mut plugin = plugin(next, 1000);
    let metric = plugin.define(&bounds(&[4.0])).unwrap();
    plugin.series(metric, &[]).unwrap();
    assert!(!running.text().contains("le=\"4\""));
    next.serve();
    let after = plugin.define(&definition(MetricKind::Gauge, "x", &[], &[]));
    let series = plugin.series(after.unwrap(), &[]).unwrap();
    plugin.set(series, 7.0).unwrap();
    let text = running.text();
    assert!(
        text.contains("le=\"4\"") && !text.contains("le=\"1\""),
        "{text}"
    );
    assert!(
        text.contains("# TYPE castling_plugin_my_plugin_x gauge"),
        "{text}"
    );
}

/// Without how full the table is.
fn lines_but_of_the_table(text: &str) -> Vec<&str> {
    let others = |line: &&str| !line.starts_with("castling_metrics_series");
    text.lines().filter(others).collect()
}

#[test]
fn what_has_no_room_is_lost_and_harms_nothing() {
    let zone = MetricsZone::create(256).unwrap();
    zone.take_row(0).unwrap();
    let worker = Recorder::new(zone, Some(0), 1);
    worker.serve();
    for route in 0..1000 {
        worker
            .requests("web", &route.to_string())
            .count(http::StatusCode::OK);
    }
    let upstream = worker.upstream("late");
    upstream.tried(
        castling_abi::PeerOutcome::Responded,
        std::time::Duration::ZERO,
    );
    assert!(value(&worker, "castling_metrics_refused_total").unwrap() > 0.0);
    assert_eq!(
        value(
            &worker,
            "castling_requests_total{listener=\"web\",route=\"0\",code=\"2xx\"}"
        ),
        Some(1.0)
    );
}

proptest! {
    /// Any value of a label stays in its quotes, and comes out as it went in but for control characters.
    #[test]
    fn label_values_come_back(value in any::<String>()) {
        let Labels(text) = Labels::new([("l", value.as_str())]);
        let quoted = text.strip_prefix("l=\"").and_then(|text| text.strip_suffix('"')).unwrap();
        let mut read = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            prop_assert!(c != '"' && !c.is_control());
            read.push(match c {
                '\\' => match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('\\' | '"')) => c,
                    other => panic!("{other:?}"),
                },
                c => c,
            });
        }
        let expected: String = value
            .chars()
            .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
            .collect();
        prop_assert_eq!(read, expected);
    }

    /// No bytes of a guest harm anything.
    #[test]
    fn any_definition_and_any_values_are_taken_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        metric in 0_u32..3,
        value in any::<f64>(),
    ) {
        let mut plugin = plugin(Recorder::alone(256).unwrap(), 10);
        plugin.define(&definition(MetricKind::Gauge, "g", &["l"], &[])).unwrap();
        let _ = plugin.define(&bytes);
        if let Ok(series) = plugin.series(metric, &bytes) {
            let _ = plugin.add(series, value);
            let _ = plugin.set(series, value);
            let _ = plugin.observe(series, value);
        }
    }
}
