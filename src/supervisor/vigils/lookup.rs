//! Addresses of hosts. The resolver may take half a minute for a name, whatever time a probe has: each name is looked
//! up in a thread of its own, one at a time, and never in the pool that everything shares. Who asks for a name that is
//! being looked up waits for that answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::aside;
use super::probe::NoYes;

/// What a name came to, as soon as that is known.
type Found = watch::Receiver<Option<Result<Vec<SocketAddr>, NoYes>>>;

static UNDER_WAY: Mutex<BTreeMap<String, Found>> = Mutex::new(BTreeMap::new());

fn under_way() -> MutexGuard<'static, BTreeMap<String, Found>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a host can be reached.
pub(super) async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, NoYes> {
    let mut found = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
        }
        Err(_) => look_up(host, |host| Ok((host, 0).to_socket_addrs()?.collect())).await?,
    };
    found.iter_mut().for_each(|address: &mut SocketAddr| address.set_port(port));
    Ok(found)
}

async fn look_up(
    host: &str,
    resolve: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>, NoYes> {
    let unasked = || NoYes::Unasked(format!("there is no thread to look up {host}"));
    let mut found = begin(host, resolve).ok_or_else(unasked)?;
    match found.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(answer)) => answer.clone(),
        Ok(None) | Err(_) => Err(NoYes::Unasked(format!("nobody looks up {host} any more"))),
    }
}

fn begin(
    host: &str,
    resolve: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Option<Found> {
    let mut all = under_way();
    if let Some(found) = all.get(host).filter(|found| found.has_changed().is_ok()) {
        return Some(found.clone());
    }
    let (tell, found) = watch::channel(None);
    let name = host.to_owned();
    let begun = aside(move || {
        let answer = resolve(&name).map_err(|error| NoYes::of(&error));
        // Who comes from here on wants a new answer.
        under_way().remove(&name);
        tell.send_replace(Some(answer));
    });
    // The thread needs the lock that we hold to take it out again.
    all.extend(begun.then(|| (host.to_owned(), found.clone())));
    begun.then_some(found)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_name_that_takes_long_is_looked_up_once_at_a_time_and_holds_up_no_other() {
        let (free, stuck) = mpsc::channel::<()>();
        let stuck = Arc::new(Mutex::new(stuck));
        let times = Arc::new(AtomicU32::new(0));
        let ask = |host: &'static str| {
            let (stuck, times) = (Arc::clone(&stuck), Arc::clone(&times));
            look_up(host, move |_| {
                times.fetch_add(1, Ordering::Relaxed);
                let _ = stuck.lock().unwrap().recv();
                Ok(vec![([192, 0, 2, 1], 0).into()])
            })
        };
        let mut waiting = [ask("slow.example"), ask("slow.example")].map(Box::pin);
        for waiting in &mut waiting {
            let pending = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
            assert!(pending);
        }
        let other = look_up("quick.example", |_| Err(io::Error::from_raw_os_error(libc::ENOENT))).await;
        assert!(matches!(other, Err(NoYes::No(_))), "{other:?}");
        drop(free);
        for waiting in waiting {
            assert_eq!(waiting.await, Ok(vec![([192, 0, 2, 1], 0).into()]));
        }
        assert_eq!(times.load(Ordering::Relaxed), 1);
        assert_eq!(ask("slow.example").await, Ok(vec![([192, 0, 2, 1], 0).into()]));
        assert_eq!(times.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_address_is_its_own_and_localhost_is_both_of_them() {
        assert_eq!(addresses("::1", 80).await, Ok(vec!["[::1]:80".parse().unwrap()]));
        let both = ["127.0.0.1:8080", "[::1]:8080"].map(|address| address.parse().unwrap());
        assert_eq!(addresses("LocalHost", 8080).await, Ok(both.to_vec()));
    }
}
