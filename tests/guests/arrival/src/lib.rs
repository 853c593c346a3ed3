//! Begins the variable `trail`, before routing.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Arrival;

#[plugin]
impl Arrival {
    fn post_read(&self, request: &mut Request) {
        request.set_var("trail", "arrival.post_read");
    }
}
