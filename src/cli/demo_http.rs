//! `outlive demo-http`: a web page to try things out with, so that the examples need nothing installed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::error::Fail;
use super::{Out, code};

/// Longest request line that is read.
const LINE_MAX: u64 = 8 * 1024;

/// How long a visitor may take.
const TIME: Duration = Duration::from_secs(5);

pub(crate) fn demo_http(out: &mut Out) -> Result<u8, Fail> {
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| Fail::Usage(format!("PORT={text:?} is no port number")))?,
        Err(_) => 8080,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .map_err(|e| Fail::Other(format!("cannot listen on 127.0.0.1:{port}: {e}")))?;
    out.line(&format!("serving on http://{}", listener.local_addr()?))?;
    serve(&listener, out)?;
    Ok(code::OK)
}

/// One visitor after the other; what goes wrong with one is printed and forgotten.
fn serve(listener: &TcpListener, out: &mut Out) -> io::Result<()> {
    for (number, stream) in (1_u64..).zip(listener.incoming()) {
        match stream.and_then(|stream| answer(stream, number)) {
            Ok(line) => out.line(&format!("request {number}: {line}"))?,
            Err(e) => out.line(&format!("request {number}: {e}"))?,
        }
        out.flush()?;
    }
    Ok(())
}

fn answer(stream: TcpStream, number: u64) -> io::Result<String> {
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    let mut reader = BufReader::new((&stream).take(LINE_MAX));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    // The rest of the head is read, so that closing does not cut the answer off.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    let body = format!("outlive demo: request {number}\n");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n",
        body.len()
    );
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(body.as_bytes())?;
    Ok(first.trim_end().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_gets_the_page() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut visitor = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(answer(stream, 7).unwrap(), "GET / HTTP/1.1");
        let mut page = String::new();
        visitor.read_to_string(&mut page).unwrap();
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("outlive demo: request 7\n"),
            "{page}"
        );
    }
}
