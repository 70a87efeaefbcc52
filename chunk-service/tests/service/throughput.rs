use std::time::Instant;
use crate::harness::{World, pattern, messages};
use crate::peer::Peer;

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    { eprintln!("   user {} sys {}", f[11], f[12]); (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0 }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn throughput() {
    let world = World::start().await;
    let bytes = pattern(64 << 20);
    for streams in [1usize, 4] {
        let begun = Instant::now();
        let c0 = cpu();
        let mut places = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..16 / streams * 0 + streams {
            let peer = world.peer.clone();
            let client = world.client().await;
            let bytes = bytes.clone();
            tasks.push(tokio::spawn(async move {
                let mut places = Vec::new();
                for _ in 0..16 / streams {
                    let place = Peer::place();
                    let cap = peer.may_write(place, 64 << 20);
                    let mut m = messages(&place, &bytes, 0, 256 * 1024);
                    for m in &mut m { if let Some(d) = &mut m.data { d.crc32c = None; } }
                    let t = Instant::now();
                    client.send(&cap, m).await.unwrap();
                    if streams == 1 { eprintln!("put {:?}", t.elapsed()); }
                    places.push(place);
                }
                places
            }));
        }
        for t in tasks { places.extend(t.await.unwrap()); }
        let s = begun.elapsed().as_secs_f64();
        eprintln!("PUT {streams} streams: cpu {:.2}s of {s:.2}: {} MB/s", cpu() - c0, (places.len() * bytes.len()) as f64 / s / 1e6);
        let begun = Instant::now();
        let per = places.len() / streams;
        let mut tasks = Vec::new();
        for part in places.chunks(per) {
            let part = part.to_vec();
            let client = world.client().await;
            let caps: Vec<_> = part.iter().map(|p| world.peer.may_read(*p, &bytes)).collect();
            tasks.push((client, part, caps));
        }
        let begun2 = Instant::now();
        let c0 = cpu();
        let mut handles = Vec::new();
        for (client, part, caps) in tasks {
            handles.push(tokio::spawn(async move {
                for (p, c) in part.iter().zip(&caps) {
                    let request = proto::pb::ReadChunkRequest { chunk_id: p.chunk.to_string(), read_offset: 0, read_limit: 0 };
                    let mut s = client.0.clone().read_chunk(crate::harness::with_capability(request, c)).await.unwrap().into_inner();
                    let mut n = 0;
                    while let Some(m) = s.message().await.unwrap() { n += m.data.unwrap().content.len(); }
                    assert_eq!(n, 64 << 20);
                }
            }));
        }
        for h in handles { h.await.unwrap(); }
        let s = begun2.elapsed().as_secs_f64();
        drop(begun);
        eprintln!("GET {streams} streams: cpu {:.2}s of {s:.2}: {} MB/s", cpu() - c0, (places.len() * bytes.len()) as f64 / s / 1e6);
    }
    // small
    let small = pattern(4096);
    for n in [1usize, 16, 64] {
        let count = 6400 / n / 4;
        let clients = futures_util::future::join_all((0..2).map(|_| world.client())).await;
        let begun = Instant::now();
        let mut handles = Vec::new();
        for i in 0..n {
            let client = clients[i % 2].clone();
            let peer = world.peer.clone();
            let small = small.clone();
            handles.push(tokio::spawn(async move {
                for _ in 0..count {
                    let place = Peer::place();
                    let cap = peer.may_write(place, 4096);
                    client.put(&place, &cap, &small).await.unwrap();
                }
            }));
        }
        for h in handles { h.await.unwrap(); }
        eprintln!("PUT 4KiB x{n}: {:.0}/s", (n * count) as f64 / begun.elapsed().as_secs_f64());
        let place = world.put(&small).await;
        let cap = world.peer.may_read(place, &small);
        let begun = Instant::now();
        let mut handles = Vec::new();
        for i in 0..n {
            let client = clients[i % 2].clone();
            let cap = cap.clone();
            handles.push(tokio::spawn(async move {
                for _ in 0..count * 4 { client.read(&place, &cap, 0, 0).await.unwrap(); }
            }));
        }
        for h in handles { h.await.unwrap(); }
        eprintln!("GET 4KiB x{n}: {:.0}/s", (n * count * 4) as f64 / begun.elapsed().as_secs_f64());
    }
}
