use castling_sdk::prelude::*;

#[derive(Default)]
struct NoNames;

#[plugin]
impl NoNames {
    fn variable(&self, _: &Request, _: &str) -> Option<String> {
        None
    }
}

#[derive(Default)]
struct NoPeriod;

#[plugin(timer_on = "one_worker")]
impl NoPeriod {
    fn timer(&self) {}
}

#[derive(Default)]
struct NoHook;

#[plugin(variables = ["a"], timer = "1s")]
impl NoHook {
    fn access(&self, _: &mut Request) {}
}

#[derive(Default)]
struct BadName;

#[plugin(variables = ["Shoe-Size"])]
impl BadName {
    fn access(&self, _: &mut Request) {}
}

#[derive(Default)]
struct BadPeriod;

#[plugin(timer = "1ms")]
impl BadPeriod {
    fn timer(&self) {}
}

#[derive(Default)]
struct BadPlace;

#[plugin(timer = "1s", timer_on = "everywhere")]
impl BadPlace {
    fn timer(&self) {}
}

#[derive(Default)]
struct NoState;

#[plugin(state_in = "instance")]
impl NoState {
    fn access(&self, _: &mut Request) {}
}

#[derive(Default)]
struct Elsewhere;

#[plugin(state = String, state_in = "disk")]
impl Elsewhere {
    fn access(&self, state: &mut String, _: &mut Request) {}
}

#[derive(Default)]
struct Unknown;

#[plugin(colour = "red")]
impl Unknown {
    fn access(&self, _: &mut Request) {}
}

fn main() {}
