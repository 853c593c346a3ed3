//! A scripted DNS server: by UDP, and by TCP where an answer has no room there.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Answers of the server to questions for a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, and the seconds for which they are good.
    Addresses(Vec<IpAddr>, u32),
    /// These addresses through another name.
    Alias(&'static str, Vec<IpAddr>, u32),
    /// Priority, weight, port and host of each.
    Services(Vec<(u16, u16, u16, &'static str)>, u32),
    /// The name is there, and has nothing of the kind.
    Nothing,
    /// This error: 2 is SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    Error(u8),
    /// No answer at all.
    Silence,
    /// Bytes that are no message, and messages for others; then this.
    After(Box<Self>),
    /// Addresses of the IPv4 family, and silence on the other.
    Half(Vec<Ipv4Addr>, u32),
}

/// The server. It runs until the test's process ends.
#[derive(Clone, Debug)]
pub struct NameServer {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    says: Mutex<BTreeMap<String, Says>>,
    questions: AtomicUsize,
    by_tcp: AtomicUsize,
}

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const LARGEST_BY_UDP: usize = 512;

impl NameServer {
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let server = Self {
            address: udp.local_addr().expect("an address"),
            state: Arc::default(),
        };
        let state = Arc::clone(&server.state);
        thread::spawn(move || serve_udp(&udp, &state));
        let state = Arc::clone(&server.state);
        thread::spawn(move || serve_tcp(&tcp, &state));
        server
    }

    /// From now on it says this of the name. Of others it says that they are none.
    pub fn set(&self, name: &str, says: Says) {
        let mut all = self
            .state
            .says
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), says);
    }

    /// IPv4 addresses that are good for so many seconds.
    pub fn set_addresses(&self, name: &str, addresses: &[Ipv4Addr], ttl: u32) {
        let addresses = addresses.iter().copied().map(IpAddr::from).collect();
        self.set(name, Says::Addresses(addresses, ttl));
    }

    /// Questions so far.
    pub fn questions(&self) -> usize {
        self.state.questions.load(Ordering::SeqCst)
    }

    /// Questions so far that came by TCP.
    pub fn by_tcp(&self) -> usize {
        self.state.by_tcp.load(Ordering::SeqCst)
    }
}

/// Sockets of both kinds, on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = tcp.local_addr().expect("an address");
        if let Ok(udp) = UdpSocket::bind(address) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

fn serve_udp(socket: &UdpSocket, state: &State) {
    let mut bytes = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut bytes) {
        for mut answer in state.answers(&bytes[..length]) {
            if answer.len() > LARGEST_BY_UDP {
                answer.truncate(bytes[..length].len());
                // The bit TC, and no records.
                answer[2] |= 2;
                answer[6..12].fill(0);
            }
            // The client may have gone.
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn serve_tcp(socket: &TcpListener, state: &State) {
    while let Ok((mut stream, _)) = socket.accept() {
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        if stream.read_exact(&mut question).is_err() {
            continue;
        }
        state.by_tcp.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = state.answers(&question).pop() {
            let length = u16::try_from(answer.len()).expect("a short answer");
            let _ = stream.write_all(&length.to_be_bytes());
            let _ = stream.write_all(&answer);
        }
    }
}

impl State {
    /// Messages that answer a question, mostly one.
    fn answers(&self, question: &[u8]) -> Vec<Vec<u8>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let (name, kind) = asked(question);
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        let says = says.get(&name).cloned().unwrap_or(Says::Error(3));
        answers(&says, question, kind)
    }
}

fn answers(says: &Says, question: &[u8], kind: u16) -> Vec<Vec<u8>> {
    let whole = |error, records: Vec<Vec<u8>>| vec![message(question, error, &records)];
    match says {
        Says::Addresses(addresses, ttl) => whole(0, addresses_of(addresses, kind, *ttl, OWNER)),
        Says::Alias(target, addresses, ttl) => {
            let target = labels(target);
            let mut records = vec![record(OWNER, CNAME, *ttl, &target)];
            records.extend(addresses_of(addresses, kind, *ttl, &target));
            whole(0, records)
        }
        Says::Services(services, ttl) if kind == SRV => {
            let of_service = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
                let mut data = Vec::new();
                for number in [priority, weight, port] {
                    data.extend(number.to_be_bytes());
                }
                data.extend(labels(host));
                record(OWNER, SRV, *ttl, &data)
            };
            whole(0, services.iter().map(of_service).collect())
        }
        Says::Half(addresses, ttl) if kind == A => {
            let addresses: Vec<IpAddr> = addresses.iter().copied().map(IpAddr::from).collect();
            whole(0, addresses_of(&addresses, kind, *ttl, OWNER))
        }
        Says::Services(..) | Says::Nothing => whole(0, Vec::new()),
        Says::Error(error) => whole(*error, Vec::new()),
        Says::Silence | Says::Half(..) => Vec::new(),
        Says::After(says) => {
            let mut for_another = message(question, 0, &[]);
            for_another[0] ^= 0xff;
            let mut all = vec![b"no message".to_vec(), Vec::new(), for_another];
            all.extend(answers(says, question, kind));
            all
        }
    }
}

/// The name of the question, as a pointer.
const OWNER: &[u8] = &[0xc0, 12];

fn addresses_of(addresses: &[IpAddr], kind: u16, ttl: u32, owner: &[u8]) -> Vec<Vec<u8>> {
    let records = addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(address), A) => Some(record(owner, A, ttl, &address.octets())),
            (IpAddr::V6(address), AAAA) => Some(record(owner, AAAA, ttl, &address.octets())),
            _ => None,
        });
    records.collect()
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(kind.to_be_bytes());
    record.extend(1_u16.to_be_bytes());
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
    record.extend(data);
    record
}

fn message(question: &[u8], error: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = question[..2].to_vec();
    // A response, to a recursive question, of a server that does so.
    message.extend([0x81, 0x80 | error, 0, 1]);
    message.extend(
        u16::try_from(records.len())
            .expect("few records")
            .to_be_bytes(),
    );
    message.extend([0, 0, 0, 0]);
    message.extend(&question[12..]);
    records.iter().for_each(|record| message.extend(record));
    message
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Name and kind that a message asks for.
fn asked(question: &[u8]) -> (String, u16) {
    let mut at = 12;
    let mut labels = Vec::new();
    while let Some(&length) = question.get(at).filter(|length| **length > 0) {
        let end = at + 1 + usize::from(length);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    (labels.join("."), kind)
}
