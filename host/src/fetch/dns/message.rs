//! Messages: a question out, and what a response says to it. The responses' bytes are anybody's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE, header_buffer};

use crate::config::is_of_a_host;

/// Kind of the records that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    A,
    Aaaa,
    Srv,
}

/// Result of a question that a server has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Empty where the name has none of the kind, or is none.
    pub records: Vec<Record>,
    /// Seconds for which they are good; 0 without any.
    pub ttl: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Address(IpAddr),
    Service(Service),
}

/// Where a service is (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Rank: hosts with the lowest number come first.
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Lower case, without the last dot. Empty: there is no such service.
    pub target: String,
}

/// Reasons why a response answers nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// A response to another question: the right one may come yet.
    Stray,
    /// A response that had no room: the whole comes by TCP.
    Truncated,
    /// The server's fault, in words for a person.
    Failed(String),
}

/// Longest name (RFC 1035 §2.3.4), as text without the last dot.
const LONGEST_NAME: usize = 253;

/// Names that lead from one to the next.
const LONGEST_CHAIN: usize = 16;

/// Bytes of a question. `None`: the name cannot be one.
pub fn question(id: u16, name: &str, kind: RecordKind) -> Option<Vec<u8>> {
    if name.len() > LONGEST_NAME || name.is_empty() {
        return None;
    }
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    let class = CLASS::IN.into();
    packet.questions.push(Question::new(
        name,
        QTYPE::TYPE(kind.record_type()),
        class,
        false,
    ));
    packet.build_bytes_vec().ok()
}

/// Reads a response to such a question.
pub fn response(bytes: &[u8], id: u16, name: &str, kind: RecordKind) -> Result<Records, NoAnswer> {
    let is_ours = header_buffer::id(bytes) == Ok(id)
        && header_buffer::has_flags(bytes, PacketFlag::RESPONSE) == Ok(true);
    if !is_ours {
        return Err(NoAnswer::Stray);
    }
    if header_buffer::has_flags(bytes, PacketFlag::TRUNCATION) == Ok(true) {
        return Err(NoAnswer::Truncated);
    }
    let packet = Packet::parse(bytes)
        .map_err(|error| NoAnswer::Failed(format!("makes no sense: {error}")))?;
    let [question] = &*packet.questions else {
        return Err(NoAnswer::Stray);
    };
    if text(&question.qname) != name.to_ascii_lowercase()
        || question.qtype != QTYPE::TYPE(kind.record_type())
    {
        return Err(NoAnswer::Stray);
    }
    match packet.rcode() {
        RCODE::NoError => Ok(records(&packet, name, kind)),
        // There is no such name (RFC 2308).
        RCODE::NameError => Ok(Records::default()),
        code => Err(NoAnswer::Failed(format!("answers {code:?}"))),
    }
}

/// For fuzz targets: reads bytes as a response to whatever they say that they answer, and panics where what comes of it cannot
/// be a peer's.
pub fn check_response(bytes: &[u8]) {
    let id = header_buffer::id(bytes).unwrap_or_default();
    let asked = Packet::parse(bytes).ok();
    let asked = asked.and_then(|packet| Some(text(&packet.questions.first()?.qname)));
    let name = asked.unwrap_or_default();
    for kind in [RecordKind::A, RecordKind::Aaaa, RecordKind::Srv] {
        let Ok(read) = response(bytes, id, &name, kind) else {
            continue;
        };
        for record in read.records {
            match record {
                Record::Address(address) => assert!(is_of_a_host(address)),
                Record::Service(service) => assert!(is_host(&service.target)),
            }
        }
        assert!(read.ttl <= i32::MAX as u32);
        let other = response(bytes, id.wrapping_add(1), &name, kind);
        assert_eq!(other, Err(NoAnswer::Stray));
    }
}

/// Records of the name in a response, or of the name that it stands for.
fn records(packet: &Packet<'_>, name: &str, kind: RecordKind) -> Records {
    let mut aliases = BTreeMap::new();
    for record in &packet.answers {
        if let RData::CNAME(alias) = &record.rdata {
            aliases.insert(text(&record.name), (text(&alias.0), record.ttl));
        }
    }
    let (mut owner, mut ttl) = (name.to_ascii_lowercase(), u32::MAX);
    for _ in 0..LONGEST_CHAIN {
        let Some((target, alias_ttl)) = aliases.get(&owner) else {
            break;
        };
        ttl = ttl.min(seconds(*alias_ttl));
        owner = target.clone();
    }
    let mut found = Records::default();
    for record in &packet.answers {
        if record.class == CLASS::IN
            && let Some(read) = kind.read(&record.rdata)
            && text(&record.name) == owner
        {
            ttl = ttl.min(seconds(record.ttl));
            found.records.push(read);
        }
    }
    if !found.records.is_empty() {
        found.ttl = ttl;
    }
    found
}

/// RFC 2181 §8: a number with the highest bit is none.
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// A name for comparisons: lower case, without the last dot.
fn text(name: &Name<'_>) -> String {
    let mut text = name.to_string();
    text.make_ascii_lowercase();
    text
}

impl RecordKind {
    fn record_type(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Srv => TYPE::SRV,
        }
    }

    /// The record, where it is of this kind and can be one of a peer's.
    fn read(self, data: &RData<'_>) -> Option<Record> {
        let address = match (self, data) {
            (Self::A, RData::A(record)) => IpAddr::from(record.address.to_be_bytes()),
            (Self::Aaaa, RData::AAAA(record)) => IpAddr::from(record.address.to_be_bytes()),
            (Self::Srv, RData::SRV(record)) => {
                let target = text(&record.target);
                return is_host(&target).then_some(Record::Service(Service {
                    priority: record.priority,
                    weight: record.weight,
                    port: record.port,
                    target,
                }));
            }
            _ => return None,
        };
        // An answer that says otherwise is a lie, or a way to say that there is none.
        is_of_a_host(address).then_some(Record::Address(address))
    }
}

/// Whether the name can be in a `Host` field. The root's, which is empty, says that there is no service.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(is_byte)
    };
    name.is_empty() || name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME, SRV};

    use super::*;

    /// A response to a question for the name, with these records.
    fn reply(name: &str, kind: RecordKind, records: Vec<(&str, u32, RData<'_>)>) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let qtype = QTYPE::TYPE(kind.record_type());
        let question = Question::new(Name::new_unchecked(name), qtype, CLASS::IN.into(), false);
        packet.questions.push(question);
        for (owner, ttl, data) in records {
            let owner = Name::new_unchecked(owner);
            let record = ResourceRecord::new(owner, CLASS::IN, ttl, data);
            packet.answers.push(record);
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn a(last: u8) -> RData<'static> {
        RData::A(A {
            address: u32::from_be_bytes([10, 0, 0, last]),
        })
    }

    fn address(text: &str) -> Record {
        Record::Address(text.parse().unwrap())
    }

    #[test]
    fn addresses_come_by_the_name_or_by_what_it_stands_for() {
        let alias = |to| RData::CNAME(CNAME(Name::new_unchecked(to)));
        let bytes = reply(
            "App.test",
            RecordKind::A,
            vec![
                ("app.test", 60, alias("www.test")),
                ("www.test", 20, alias("host.test")),
                ("host.test", 300, a(1)),
                ("other.test", 1, a(9)),
                ("HOST.test", 30, a(2)),
            ],
        );
        let read = response(&bytes, 7, "app.test", RecordKind::A).unwrap();
        assert_eq!(read.records, [address("10.0.0.1"), address("10.0.0.2")]);
        assert_eq!(read.ttl, 20);
    }

    #[test]
    fn names_in_a_circle_lead_nowhere() {
        let alias = |to| RData::CNAME(CNAME(Name::new_unchecked(to)));
        let bytes = reply(
            "a.test",
            RecordKind::A,
            vec![
                ("a.test", 1, alias("b.test")),
                ("b.test", 1, alias("a.test")),
            ],
        );
        let read = response(&bytes, 7, "a.test", RecordKind::A).unwrap();
        assert_eq!(read, Records::default());
    }

    #[test]
    fn lies_are_left_out() {
        let v6 = |address: &str| {
            let address: std::net::Ipv6Addr = address.parse().unwrap();
            RData::AAAA(AAAA {
                address: address.into(),
            })
        };
        let bytes = reply(
            "a.test",
            RecordKind::Aaaa,
            vec![
                ("a.test", u32::MAX, v6("::")),
                ("a.test", 9, v6("ff02::1")),
                ("a.test", 9, a(1)),
                ("a.test", 9, v6("fd00::1")),
            ],
        );
        let read = response(&bytes, 7, "a.test", RecordKind::Aaaa).unwrap();
        assert_eq!((read.records, read.ttl), (vec![address("fd00::1")], 9));
    }

    #[test]
    fn services_say_where_and_in_which_order() {
        let srv = |priority, target| {
            RData::SRV(SRV {
                priority,
                weight: 3,
                port: 81,
                target: Name::new_unchecked(target),
            })
        };
        let bytes = reply(
            "_http._tcp.test",
            RecordKind::Srv,
            vec![
                ("_http._tcp.test", 5, srv(1, "A.test")),
                ("_http._tcp.test", 5, srv(2, "b c.test")),
                ("_http._tcp.test", 5, srv(0, "")),
            ],
        );
        let read = response(&bytes, 7, "_http._tcp.test", RecordKind::Srv).unwrap();
        let service = |priority, target: &str| {
            Record::Service(Service {
                priority,
                weight: 3,
                port: 81,
                target: target.to_owned(),
            })
        };
        assert_eq!(read.records, [service(1, "a.test"), service(0, "")]);
    }

    #[test]
    fn a_response_to_another_question_is_none() {
        let bytes = reply("a.test", RecordKind::A, vec![("a.test", 1, a(1))]);
        let read = |id, name, kind| response(&bytes, id, name, kind);
        assert_eq!(read(8, "a.test", RecordKind::A), Err(NoAnswer::Stray));
        assert_eq!(read(7, "b.test", RecordKind::A), Err(NoAnswer::Stray));
        assert_eq!(read(7, "a.test", RecordKind::Srv), Err(NoAnswer::Stray));
        let asked = question(7, "a.test", RecordKind::A).unwrap();
        let echoed = response(&asked, 7, "a.test", RecordKind::A);
        assert_eq!(echoed, Err(NoAnswer::Stray), "it is no response");
        let cut = response(&bytes[..bytes.len() - 2], 7, "a.test", RecordKind::A);
        assert!(matches!(cut, Err(NoAnswer::Failed(_))), "{cut:?}");
        assert_eq!(
            response(&[], 7, "a.test", RecordKind::A),
            Err(NoAnswer::Stray)
        );
    }

    #[test]
    fn what_a_server_refuses_or_has_no_room_for_is_told() {
        let with = |change: &dyn Fn(&mut Packet<'_>)| {
            let bytes = reply("a.test", RecordKind::A, Vec::new());
            let mut packet = Packet::parse(&bytes).unwrap();
            change(&mut packet);
            let bytes = packet.build_bytes_vec().unwrap();
            response(&bytes, 7, "a.test", RecordKind::A)
        };
        let failed = with(&|packet| *packet.rcode_mut() = RCODE::ServerFailure);
        assert_eq!(
            failed,
            Err(NoAnswer::Failed("answers ServerFailure".to_owned()))
        );
        let none = with(&|packet| *packet.rcode_mut() = RCODE::NameError);
        assert_eq!(none, Ok(Records::default()));
        let cut = with(&|packet| packet.set_flags(PacketFlag::TRUNCATION));
        assert_eq!(cut, Err(NoAnswer::Truncated));
    }

    #[test]
    fn a_name_that_is_none_is_not_asked_for() {
        let long = format!("{}.test", "a".repeat(64));
        for name in ["", &long, &"a.".repeat(150)] {
            assert!(question(1, name, RecordKind::A).is_none(), "{name}");
        }
    }
}
