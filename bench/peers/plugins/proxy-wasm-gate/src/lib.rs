//! Reads one header, sets one each way, may answer 403: the plugin `gate`, for Envoy.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Gate) });
}}

struct Gate;

impl Context for Gate {}

impl HttpContext for Gate {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.get_http_request_header("x-api-key") {
            Some(key) => {
                self.set_http_request_header("x-consumer", Some(&key));
                Action::Continue
            }
            None => {
                self.send_http_response(403, vec![], Some(b"key required\n"));
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("x-gate", Some("passed"));
        Action::Continue
    }
}
