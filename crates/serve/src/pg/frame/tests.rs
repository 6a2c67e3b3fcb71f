use super::*;

async fn read(bytes: &[u8]) -> Option<Result<Frontend, Violation>> {
    Incoming::new(bytes).next().await.unwrap()
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

#[tokio::test]
async fn reads_messages() {
    assert_eq!(read(&frame(b'Q', b"select 1\0")).await, Some(Ok(Frontend::Query("select 1".into()))));
    let parse = frame(b'P', b"s\0select $1\0\0\x01\0\0\0\x17");
    let expected = Frontend::Parse { name: "s".into(), query: "select $1".into(), types: vec![23] };
    assert_eq!(read(&parse).await, Some(Ok(expected)));
    let bind = frame(b'B', b"\0s\0\0\0\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01");
    let expected = Bind {
        portal: String::new(),
        statement: "s".into(),
        formats: vec![],
        values: vec![Some(Bytes::from_static(b"x")), None],
        results: vec![1],
    };
    assert_eq!(read(&bind).await, Some(Ok(Frontend::Bind(expected))));
}

#[tokio::test]
async fn every_truncated_body_is_a_violation() {
    let bind: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";
    for len in 0..bind.len() {
        let answer = read(&frame(b'B', &bind[..len])).await;
        assert!(matches!(answer, Some(Err(Violation { fatal: false, .. }))), "{len}: {answer:?}");
    }
    for (kind, body) in [(b'P', &b"a\0b\0\xff\xff"[..]), (b'E', b"p\0\0"), (b'D', b"Sx"), (b'Q', b"no end")] {
        assert!(matches!(read(&frame(kind, body)).await, Some(Err(_))));
    }
}

#[tokio::test]
async fn wrong_lengths_and_kinds_are_fatal() {
    for bytes in [&b"Q\0\0\0\x03"[..], b"Q\xff\xff\xff\xff", b"Q\x10\0\0\0", b"?\0\0\0\x04"] {
        assert!(matches!(read(bytes).await, Some(Err(Violation { fatal: true, .. }))), "{bytes:?}");
    }
    assert_eq!(read(b"Q\0\0\0\x20half").await, None);
}

#[tokio::test]
async fn reads_openings() {
    let ssl = [0, 0, 0, 8, 4, 210, 22, 47];
    assert_eq!(Incoming::new(&ssl[..]).opening().await.unwrap(), Some(Ok(Opening::Ssl)));
    let huge = [0x7f, 0, 0, 8, 4, 210, 22, 47];
    assert!(matches!(Incoming::new(&huge[..]).opening().await.unwrap(), Some(Err(_))));
    let start = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
    let expected = Opening::Startup { version: (3, 0), parameters: vec![("user".into(), "me".into())] };
    assert_eq!(Incoming::new(&start[..]).opening().await.unwrap(), Some(Ok(expected)));
}
