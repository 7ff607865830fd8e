// A small service on port 8080; integration/loads/notes knows what it answers.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.FileWriter;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.zip.GZIPOutputStream;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.PBEKeySpec;
import sun.misc.Signal;

public class Main {
  static final String LOG = "/var/log/app/access.log";
  static final Path DATA = Path.of("/srv/app/data");
  static final ConcurrentSkipListMap<Integer, String> notes = new ConcurrentSkipListMap<>();
  static final AtomicInteger last = new AtomicInteger();
  static final SecureRandom random = new SecureRandom();
  static FileWriter log;

  record Answer(int status, byte[] body, String... headers) {
    Answer(int status, String body, String... headers) {
      this(status, body.getBytes(StandardCharsets.UTF_8), headers);
    }
  }

  static synchronized void reopen() throws IOException {
    if (log != null) log.close();
    log = new FileWriter(LOG, true);
  }

  static synchronized void log(String line) throws IOException {
    log.write(line + "\n");
    log.flush();
  }

  static Answer put(InputStream body) throws Exception {
    Path file = Files.createTempFile("blob", null);
    try {
      Files.copy(body, file, StandardCopyOption.REPLACE_EXISTING);
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      ByteBuffer part = ByteBuffer.allocateDirect(65536);
      try (FileChannel channel = FileChannel.open(file)) {
        while (channel.read(part.clear()) >= 0) digest.update(part.flip());
      }
      return new Answer(200, HexFormat.of().formatHex(digest.digest()));
    } finally {
      Files.delete(file);
    }
  }

  static Answer tidy() throws Exception {
    notes.headMap(last.get() - 5000).clear();
    Path file = Files.createTempFile(DATA, "notes", ".new");
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      for (String text : notes.values()) channel.write(ByteBuffer.wrap((text + "\n").getBytes(StandardCharsets.UTF_8)));
      channel.force(true);
    }
    Files.move(file, DATA.resolve("notes"), StandardCopyOption.ATOMIC_MOVE);
    System.gc();
    return new Answer(200, "tidy");
  }

  static Answer answer(HttpExchange exchange) throws Exception {
    String path = exchange.getRequestURI().getPath(), query = exchange.getRequestURI().getQuery();
    int number = query != null && query.startsWith("n=") ? Integer.parseInt(query.substring(2)) : 1000;
    Integer key = path.startsWith("/notes/") ? Integer.valueOf(path.substring(7)) : null;
    switch (exchange.getRequestMethod()) {
      case "POST": {
        String text = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        int id = last.incrementAndGet();
        notes.put(id, text);
        Files.writeString(DATA.resolve("journal"), id + " " + text.length() + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        return new Answer(201, "", "Location", "/notes/" + id);
      }
      case "PUT":
        return put(exchange.getRequestBody());
      case "DELETE":
        return new Answer(notes.remove(key) != null ? 204 : 404, "");
      case "GET", "HEAD":
        break;
      default:
        return new Answer(501, "");
    }
    if (key != null) return notes.containsKey(key) ? new Answer(200, notes.get(key)) : new Answer(404, "");
    switch (path) {
      case "/":
        return new Answer(200, "<!doctype html><title>lithify</title><p>This page is served from stone.\n", "Content-Type", "text/html");
      case "/health":
        return new Answer(200, "well");
      case "/notes":
        return new Answer(200, notes.descendingMap().entrySet().stream().limit(20).toList().toString());
      case "/random": {
        byte[] bytes = new byte[Math.min(number, 1 << 22)];
        random.nextBytes(bytes);
        return new Answer(200, bytes);
      }
      case "/packed": {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (GZIPOutputStream gzip = new GZIPOutputStream(bytes)) {
          gzip.write("stone ".repeat(5000).getBytes(StandardCharsets.UTF_8));
        }
        return new Answer(200, bytes.toByteArray(), "Content-Encoding", "gzip");
      }
      case "/lookup":
        return new Answer(200, InetAddress.getByName("localhost").getHostAddress());
      case "/hash": {
        SecretKeyFactory factory = SecretKeyFactory.getInstance("PBKDF2WithHmacSHA256");
        byte[] hash = factory.generateSecret(new PBEKeySpec("stone".toCharArray(), "salt".getBytes(), number, 256)).getEncoded();
        return new Answer(200, HexFormat.of().formatHex(hash));
      }
      case "/tidy":
        return tidy();
      case "/fail":
        return new Answer(500, "as it was asked to");
      default:
        return new Answer(404, "");
    }
  }

  static void handle(HttpExchange exchange) throws IOException {
    Answer answer;
    try {
      answer = answer(exchange);
    } catch (Exception error) {
      answer = new Answer(500, error.toString());
    }
    for (int i = 0; i + 1 < answer.headers.length; i += 2) exchange.getResponseHeaders().set(answer.headers[i], answer.headers[i + 1]);
    boolean silent = answer.body.length == 0 || exchange.getRequestMethod().equals("HEAD");
    exchange.sendResponseHeaders(answer.status, silent ? -1 : answer.body.length);
    try (OutputStream body = exchange.getResponseBody()) {
      if (!silent) body.write(answer.body);
    }
    log(exchange.getRequestMethod() + " " + exchange.getRequestURI() + " " + answer.status);
    exchange.close();
  }

  public static void main(String[] args) throws IOException {
    reopen();
    HttpServer server = HttpServer.create(new InetSocketAddress(8080), 128);
    server.createContext("/", Main::handle);
    server.setExecutor(Executors.newCachedThreadPool());
    Signal.handle(new Signal("HUP"), signal -> {
      try {
        reopen();
      } catch (IOException error) {
        error.printStackTrace();
      }
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
    server.start();
  }
}
