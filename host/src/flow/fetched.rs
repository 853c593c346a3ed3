//! The origin's response to a request that a cache could not answer: stored while it is sent, or in the place of what was stale.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::filling::{Fill, Filling};
use super::pipeline::{Pipeline, ResponseBody};
use super::stored::{self, Part};
use crate::cache::{
    Moment, Outcome, PASSES_FOR, PASSES_ONCE_FOR, Place, Response, RouteCache, StatusField,
    Storing, Vary, freshen, head_to_store, judge, make_conditional, make_whole,
};
use crate::error::{ClientError, Error};
use crate::message::BodySize;
use crate::phase::UpstreamIdx;
use crate::upstream;
use crate::zone::{Flight, now_ns};

/// `detail` of a stale response in the place of an error.
pub const AFTER_ERROR: &str = "stale-if-error";

/// Response of a fetch, and the place that it is for.
pub struct Fetched<'c> {
    pub cache: &'c Rc<RouteCache>,
    pub place: Place,
    pub stale: Option<Box<Response>>,
    pub flight: Option<Flight>,
    pub field: StatusField,
    pub stores: bool,
    /// Others were not waited for.
    pub alone: bool,
    pub outcome: Outcome,
}

impl Pipeline<'_> {
    /// Asks the origin for the whole, or whether what is stored is still good.
    pub async fn ask(
        &mut self,
        idx: UpstreamIdx,
        fetched: &mut Fetched<'_>,
    ) -> Result<ResponseBody, Error> {
        let cache = fetched.cache;
        let asked_ns = now_ns();
        let (answered, validates, (asked, came)) = self.ask_origin(idx, fetched).await;
        let body = match answered {
            Ok(ResponseBody::Upstream(body)) => body,
            Ok(other) => return Ok(other),
            Err(error) if error.client_is_gone() => return Err(error),
            Err(error) => {
                if let Some(stale) = fetched.stale_after_error(came) {
                    tracing::debug!("cache: stale after {error}");
                    return Ok(self.answer_stale(fetched, &stale, came));
                }
                fetched.let_others_pass(self, PASSES_ONCE_FOR, true);
                return Err(error);
            }
        };
        let status = self.exchange.reply().status;
        let is_failure = matches!(status.as_u16(), 500 | 502 | 503 | 504);
        if is_failure && let Some(stale) = fetched.stale_after_error(came) {
            fetched.field.fwd_status = Some(status.as_u16());
            return Ok(self.answer_stale(fetched, &stale, came));
        }
        if !fetched.stores {
            self.tell(fetched);
            return Ok(ResponseBody::Upstream(body));
        }
        let times = (asked, came);
        if status == StatusCode::NOT_MODIFIED
            && validates
            && let Some(stale) = fetched.stale.take()
        {
            body.finish_if_over();
            return Ok(self.answer_validated(fetched, *stale, times, asked_ns));
        }
        let own_cookie = self.worker.upstream(idx).balancer.session_cookie();
        let reply = self.exchange.reply();
        let headers = head_to_store(&reply.headers, &[], own_cookie, &self.worker.date());
        let has_credentials = self.exchange.has_credentials();
        let storing = judge(has_credentials, status, &headers, times, &cache.rules);
        let (why, time) = match storing {
            Storing::Store {
                freshness,
                vary,
                without,
            } => {
                let response = Response {
                    freshness,
                    status,
                    headers: head_to_store(&headers, &without, None, b""),
                    body: Bytes::new(),
                };
                return self.fill(fetched, body, response, (vary, asked_ns)).await;
            }
            Storing::Not(why) => (why, PASSES_FOR),
            Storing::NotForAll(why) => (why, PASSES_ONCE_FOR),
        };
        cache.metrics.not_stored.inc();
        fetched.field.detail = Some(why);
        if is_failure {
            fetched.let_others_pass(self, PASSES_ONCE_FOR, true);
        } else {
            fetched.let_others_pass(self, time, false);
        }
        Ok(self.pass_on(fetched, body))
    }

    /// Sends the request without what the client asks of its own copy: its answer, whether it was asked by what is stored, and when it
    /// was asked and answered.
    async fn ask_origin(
        &mut self,
        idx: UpstreamIdx,
        fetched: &Fetched<'_>,
    ) -> (Result<ResponseBody, Error>, bool, (Moment, Moment)) {
        let client = self.exchange.request().headers.clone();
        let mut validates = false;
        // Where responses are mostly not stored, clients have what they ask for from the origin.
        if fetched.stores {
            let headers = &mut self.exchange.request_mut().headers;
            match &fetched.stale {
                Some(stale) => validates = make_conditional(headers, &stale.headers),
                None if !fetched.alone => make_whole(headers),
                None => {}
            }
        }
        let asked = Moment::now();
        let answered = self.proxy(idx).await;
        let came = Moment::now();
        self.exchange.request_mut().headers = client;
        (answered, validates, (asked, came))
    }

    /// Sends a response that is not stored: what the client has already, it gets no other time.
    fn pass_on(&mut self, fetched: &Fetched<'_>, body: upstream::Body) -> ResponseBody {
        self.tell(fetched);
        let (request, reply) = self.exchange.heads_mut();
        let part = stored::part_of(
            &request.method,
            &request.headers,
            reply.status,
            &reply.headers,
        );
        if part != Part::NotModified {
            return ResponseBody::Upstream(body);
        }
        body.finish_if_over();
        reply.status = StatusCode::NOT_MODIFIED;
        stored::keep_of_304(&mut reply.headers);
        ResponseBody::Here(Bytes::new())
    }

    /// Stores the response while it is sent.
    async fn fill(
        &mut self,
        fetched: &mut Fetched<'_>,
        body: upstream::Body,
        response: Response,
        (vary, asked_ns): (Vary, u64),
    ) -> Result<ResponseBody, Error> {
        let cache = fetched.cache;
        let is_too_large =
            matches!(body.size(), BodySize::Exact(bytes) if bytes > cache.max_body_bytes);
        if is_too_large {
            cache.metrics.too_large.inc();
            fetched.field.detail = Some("too-large");
            fetched.let_others_pass(self, PASSES_FOR, false);
            return Ok(self.pass_on(fetched, body));
        }
        fetched.field.stored = true;
        let request = self.exchange.request();
        let fill = Fill {
            cache: Rc::clone(cache),
            place: fetched.place.again(),
            request: request.headers.clone(),
            vary,
            asked_ns,
            response,
            flight: fetched.flight.take(),
        };
        let whole = fill.response.head_only();
        let (status, headers) = (whole.status, &whole.headers);
        // The client has asked with conditions of its own, of which the origin was not told.
        let part = stored::part_of(&request.method, &request.headers, status, headers);
        let mut reader = Filling::begin(fill, body, self.worker);
        match part {
            Part::NotModified => Ok(self.answer_field(cache, &whole, fetched.field, Moment::now())),
            Part::Some if self.plan.get().response_body.is_empty() => {
                let read = Box::pin(reader.whole(usize::MAX));
                let read = self.downstream.while_there(read).await;
                match read.ok_or(ClientError::Gone)?? {
                    Some(body) => {
                        let response = Response { body, ..whole };
                        Ok(self.answer_field(cache, &response, fetched.field, Moment::now()))
                    }
                    // Too large to be stored: the client gets all of it.
                    None => {
                        self.tell(fetched);
                        Ok(ResponseBody::Filling(reader))
                    }
                }
            }
            Part::Whole | Part::Some => {
                self.tell(fetched);
                Ok(ResponseBody::Filling(reader))
            }
        }
    }

    /// Sends a stored response that the origin has said is good, with the fields that it has sent.
    fn answer_validated(
        &mut self,
        fetched: &mut Fetched<'_>,
        mut stale: Response,
        (asked, came): (Moment, Moment),
        asked_ns: u64,
    ) -> ResponseBody {
        let cache = fetched.cache;
        fetched.outcome = Outcome::Revalidated;
        fetched.field.fwd_status = Some(StatusCode::NOT_MODIFIED.as_u16());
        let (request, reply) = (self.exchange.request(), self.exchange.reply());
        freshen(&mut stale.headers, &reply.headers, &self.worker.date());
        let has_credentials = self.exchange.has_credentials();
        let (status, times) = (stale.status, (asked, came));
        match judge(has_credentials, status, &stale.headers, times, &cache.rules) {
            Storing::Store {
                freshness,
                vary,
                without,
            } => {
                stale.freshness = freshness;
                let sent = stale.headers.clone();
                stale.headers = head_to_store(&sent, &without, None, b"");
                let vary = (&vary, asked_ns);
                let stored = cache.store(&fetched.place, &request.headers, vary, &stale);
                fetched.field.stored = cache.noted(stored) == Some(true);
                if !fetched.field.stored {
                    fetched.let_others_pass(self, PASSES_ONCE_FOR, true);
                }
                stale.headers = sent;
            }
            Storing::Not(_) => {
                cache.invalidate(&fetched.place.primary);
                fetched.let_others_pass(self, PASSES_FOR, false);
            }
            // This one is its client's alone, and what is stored is for the others.
            Storing::NotForAll(_) => fetched.let_others_pass(self, PASSES_ONCE_FOR, true),
        }
        self.answer_field(cache, &stale, fetched.field, came)
    }

    /// Sends what is stale in the place of an error.
    fn answer_stale(
        &mut self,
        fetched: &mut Fetched<'_>,
        stale: &Response,
        now: Moment,
    ) -> ResponseBody {
        fetched.outcome = Outcome::Stale;
        if fetched.flight.is_some() {
            fetched.cache.note_failure(&fetched.place, stale, now);
        }
        let field = StatusField {
            detail: Some(AFTER_ERROR),
            ..fetched.field
        };
        self.answer_field(fetched.cache, stale, field, now)
    }

    /// Says in the response's head what the cache has done.
    fn tell(&mut self, fetched: &Fetched<'_>) {
        if fetched.cache.shows_status {
            let headers = &mut self.exchange.reply_mut().headers;
            fetched.field.add_to(headers);
        }
    }
}

impl Fetched<'_> {
    /// The stale response, where it may take the place of an error.
    fn stale_after_error(&mut self, now: Moment) -> Option<Box<Response>> {
        let is_usable = |stale: &Response| stale.freshness.is_usable_after_error(now);
        self.stale.take_if(|stale| is_usable(stale))
    }

    /// Has requests that wait for this one go to the origin by themselves, all at once: there is nothing for them. `keeps`: what was
    /// stored stays. A client that has asked with conditions or for a part is to have them answered by the origin next time.
    fn let_others_pass(&mut self, pipeline: &Pipeline<'_>, time: Duration, keeps: bool) {
        let key = self.place.flight(self.cache);
        let request = &pipeline.exchange.request().headers;
        let asks = request.contains(&http::header::RANGE)
            || request.contains(&http::header::IF_NONE_MATCH);
        let flight = self.flight.take();
        if flight.is_some() && (asks || pipeline.worker.flights().is_awaited(&key)) {
            self.cache.let_pass(&self.place, time, keeps);
        }
        drop(flight);
    }
}
