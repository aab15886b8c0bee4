// pgjdbc as an application uses it. Prints one line for each step; the test compares the lines of a direct run with
// those of a guarded one. Run as `java -cp postgresql.jar DriverJdbc.java URL`.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;
import java.util.Timer;
import java.util.TimerTask;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

public class DriverJdbc {
    interface Step {
        Object run() throws Exception;
    }

    static void say(String name, Step step) throws Exception {
        Object value;
        try {
            value = step.run();
        } catch (BatchUpdateException e) {
            value = "batch failed: " + Arrays.toString(e.getUpdateCounts()) + " " + e.getSQLState() + " "
                + e.getNextException().getMessage();
        } catch (SQLException e) {
            value = "failed: " + e.getSQLState() + " " + e.getMessage();
        }
        System.out.println(name + ": " + String.valueOf(value).replace("\n", "\\n"));
    }

    static String rows(ResultSet result) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
            for (int i = 1; i <= columns; i++) text.append(result.getString(i)).append(i < columns ? "," : ";");
        }
        return text.toString();
    }

    static String one(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            return rows(r);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        for (String mode : new String[] {"extended", "extendedForPrepared", "extendedCacheEverything", "simple"}) {
            System.out.println("--- preferQueryMode " + mode);
            String more = "&preferQueryMode=" + mode + "&prepareThreshold=2";
            try (Connection c = DriverManager.getConnection(url + more)) {
                work(c, mode);
            }
        }
        for (String autosave : new String[] {"always", "conservative"}) {
            System.out.println("--- autosave " + autosave);
            try (Connection c = DriverManager.getConnection(url + "&autosave=" + autosave)) {
                c.setAutoCommit(false);
                say("insert", () -> c.createStatement().executeUpdate("INSERT INTO scratch VALUES (1, 'autosaved')"));
                say("error", () -> one(c, "SELECT 1 / 0"));
                say("still there", () -> one(c, "SELECT payload FROM scratch WHERE payload = 'autosaved'"));
                c.rollback();
            }
        }
        say("rewritten batches", () -> {
            try (Connection c = DriverManager.getConnection(url + "&reWriteBatchedInserts=true");
                 PreparedStatement s = c.prepareStatement("INSERT INTO scratch VALUES (?, ?)")) {
                for (int i = 0; i < 700; i++) {
                    s.setInt(1, i);
                    s.setString(2, "rewritten");
                    s.addBatch();
                }
                s.executeBatch();
                String count = one(c, "SELECT count(*) FROM scratch WHERE payload = 'rewritten'");
                c.createStatement().executeUpdate("DELETE FROM scratch WHERE payload = 'rewritten'");
                return count;
            }
        });
    }

    static void work(Connection c, String mode) throws Exception {
        Statement statement = c.createStatement();
        say("parameters", () -> {
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int, ?::text, ?::numeric, ?::date, ?::text")) {
                StringBuilder all = new StringBuilder();
                for (int i = 0; i < 7; i++) {  // past the threshold: from unnamed text to named binary
                    s.setInt(1, i);
                    s.setString(2, "ü" + i);
                    s.setBigDecimal(3, new java.math.BigDecimal("1.50"));
                    s.setDate(4, java.sql.Date.valueOf("2024-02-29"));
                    s.setNull(5, Types.VARCHAR);
                    all.append(rows(s.executeQuery()));
                }
                return all;
            }
        });
        say("several results", () -> {
            StringBuilder all = new StringBuilder();
            boolean isResult = statement.execute("SELECT 1; UPDATE items SET quantity = 1 WHERE id = 1; SELECT 2, 3");
            while (isResult || statement.getUpdateCount() >= 0) {
                all.append(isResult ? rows(statement.getResultSet()) : "updated " + statement.getUpdateCount() + ";");
                isResult = statement.getMoreResults();
            }
            return all;
        });
        say("batch", () -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO scratch VALUES (?, ?)")) {
                for (int i = 0; i < 1500; i++) {
                    s.setInt(1, i);
                    s.setString(2, "b".repeat(i % 100));
                    s.addBatch();
                }
                return Arrays.stream(s.executeBatch()).sum();
            }
        });
        say("batch with generated keys", () -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO scratch VALUES (?, 'k')", new String[] {"id"})) {
                for (int i = 0; i < 300; i++) {
                    s.setInt(1, i);
                    s.addBatch();
                }
                s.executeBatch();
                return rows(s.getGeneratedKeys()).length();
            }
        });
        say("batch that fails", () -> {
            statement.addBatch("INSERT INTO items VALUES (300, 'x', 1)");
            statement.addBatch("INSERT INTO items VALUES (1, 'again', 1)");
            statement.addBatch("INSERT INTO items VALUES (301, 'y', 1)");
            return Arrays.toString(statement.executeBatch());
        });
        say("after it", () -> {
            statement.clearBatch();
            String seen = one(c, "SELECT count(*) FROM items");
            statement.executeUpdate("DELETE FROM items WHERE id >= 300");
            return seen;
        });
        c.setAutoCommit(false);
        say("cursor by fetch size", () -> {
            statement.setFetchSize(7);
            String all = rows(statement.executeQuery("SELECT id FROM items ORDER BY id"));
            try (PreparedStatement s = c.prepareStatement("SELECT i FROM generate_series(1, ?) i")) {
                s.setFetchSize(100);
                s.setInt(1, 1234);
                return all + rows(s.executeQuery()).length();
            } finally {
                statement.setFetchSize(0);
            }
        });
        say("two cursors at once", () -> {
            try (Statement a = c.createStatement(); Statement b = c.createStatement()) {
                a.setFetchSize(2);
                b.setFetchSize(3);
                ResultSet x = a.executeQuery("SELECT id FROM items ORDER BY id");
                ResultSet y = b.executeQuery("SELECT id FROM items ORDER BY id DESC");
                StringBuilder all = new StringBuilder();
                while (x.next() && y.next()) all.append(x.getInt(1)).append('/').append(y.getInt(1)).append(' ');
                return all;
            }
        });
        say("savepoint", () -> {
            statement.executeUpdate("UPDATE items SET quantity = 77 WHERE id = 2");
            Savepoint savepoint = c.setSavepoint("here");
            try {
                statement.executeUpdate("INSERT INTO items VALUES (1, 'again', 1)");
            } catch (SQLException e) {
                c.rollback(savepoint);
            }
            return one(c, "SELECT quantity FROM items WHERE id = 2");
        });
        say("aborted transaction", () -> {
            try {
                one(c, "SELECT 1 / 0");
            } catch (SQLException e) {
                System.out.println("first: " + e.getSQLState());
            }
            return one(c, "SELECT 1");
        });
        c.rollback();
        say("commit", () -> {
            statement.executeUpdate("INSERT INTO orders VALUES (500, 999, 'breaks a deferred constraint')");
            c.commit();
            return "committed";
        });
        c.rollback();
        say("large object", () -> {
            LargeObjectManager objects = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long id = objects.createLO();
            LargeObject object = objects.open(id, LargeObjectManager.READWRITE);
            object.write(new byte[300_000]);
            object.seek(100);
            int read = object.read(400_000).length;
            object.close();
            objects.delete(id);
            return read;
        });
        c.commit();
        c.setAutoCommit(true);
        if (!mode.equals("simple")) {
            say("copy", () -> {
                CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
                StringBuilder data = new StringBuilder();
                for (int i = 0; i < 20000; i++) data.append(i).append("\tcopied\n");
                long in = copy.copyIn("COPY scratch FROM STDIN", new StringReader(data.toString()));
                StringWriter out = new StringWriter();
                long count = copy.copyOut("COPY (SELECT * FROM scratch WHERE payload = 'copied' ORDER BY id) TO STDOUT", out);
                return in + " " + count + " " + out.toString().equals(data.toString());
            });
            say("copy that fails", () -> c.unwrap(PGConnection.class).getCopyAPI()
                .copyIn("COPY scratch FROM STDIN", new StringReader("x\ty\n")));
            say("copy given up", () -> {
                var in = c.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY scratch FROM STDIN");
                in.writeToCopy("1\ty\n".getBytes(), 0, 4);
                in.cancelCopy();
                return one(c, "SELECT 'alive'");
            });
        }
        say("cancel", () -> {
            try (Statement s = c.createStatement()) {
                Timer timer = new Timer(true);
                timer.schedule(new TimerTask() {
                    @Override
                    public void run() {
                        try {
                            s.cancel();
                        } catch (SQLException ignored) {
                        }
                    }
                }, 300);
                return rows(s.executeQuery("SELECT pg_sleep(20)"));
            }
        });
        say("query timeout", () -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                return rows(s.executeQuery("SELECT pg_sleep(20)"));
            }
        });
        say("errors", () -> one(c, "SELECT * FROM nowhere"));
        say("constraint", () -> statement.executeUpdate("INSERT INTO items VALUES (1, 'again', 1)"));
        say("metadata", () -> {
            DatabaseMetaData data = c.getMetaData();
            return rows(data.getTables(null, "public", "%", new String[] {"TABLE"})).length() + " "
                + rows(data.getPrimaryKeys(null, "public", "items")) + " " + rows(data.getImportedKeys(null, "public", "orders"));
        });
        say("notification", () -> {
            statement.execute("LISTEN channel");
            statement.execute("NOTIFY channel, 'hello'");
            PGNotification[] heard = c.unwrap(PGConnection.class).getNotifications(2000);
            statement.execute("UNLISTEN *");
            return heard[0].getName() + " " + heard[0].getParameter();
        });
        say("warning", () -> {
            statement.execute("DO $$BEGIN RAISE WARNING 'careful'; END$$");
            return statement.getWarnings().getMessage();
        });
        say("statements kept on the server", () -> {
            for (int i = 0; i < 400; i++) {
                try (PreparedStatement s = c.prepareStatement("SELECT " + i + " + ?")) {
                    for (int again = 0; again < 3; again++) {
                        s.setInt(1, again);
                        s.executeQuery().close();
                    }
                }
            }
            return one(c, "SELECT count(*) FROM pg_prepared_statements");
        });
        say("prepared statement forgotten by the server", () -> {
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int")) {
                for (int i = 0; i < 4; i++) {
                    s.setInt(1, i);
                    s.executeQuery().close();
                }
                statement.execute("DISCARD ALL");
                s.setInt(1, 9);
                return rows(s.executeQuery());
            }
        });
        say("clean", () -> statement.executeUpdate("DELETE FROM scratch WHERE id >= 0"));
    }
}
