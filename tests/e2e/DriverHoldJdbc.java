// pgjdbc with statements that a second person has to approve. Run as
//   java -cp postgresql.jar DriverHoldJdbc.java asks URL      prints one line for each step: the test compares a direct
//                                                             run with a guarded one in which somebody approves all
//   java ... decides URL_OF_WHO_ASKS URL_OF_WHO_DECIDES       reads and decides as a grid of DBeaver's does

import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;

public class DriverHoldJdbc {
    interface Step {
        Object run() throws Exception;
    }

    static void say(String name, Step step) throws Exception {
        Object value;
        try {
            value = step.run();
        } catch (BatchUpdateException e) {
            value = "batch failed: " + Arrays.toString(e.getUpdateCounts()) + " " + e.getSQLState();
        } catch (SQLException e) {
            value = "failed: " + e.getSQLState() + " " + e.getMessage();
        }
        System.out.println(name + ": " + String.valueOf(value).replace("\n", "\\n"));
    }

    static String one(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            return rows(r);
        }
    }

    static String rows(ResultSet result) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
            for (int i = 1; i <= columns; i++) text.append(result.getString(i)).append(i < columns ? "," : ";");
        }
        return text.toString();
    }

    static final String STATES = "SELECT state, count(*) FROM jobs GROUP BY 1 ORDER BY 1";

    static void asks(String url) throws Exception {
        for (String mode : new String[] {"extended", "extendedCacheEverything", "simple"}) {
            for (boolean autocommit : new boolean[] {true, false}) {
                System.out.println("--- " + mode + (autocommit ? " with autocommit" : " without autocommit"));
                try (Connection c = DriverManager.getConnection(url + "&preferQueryMode=" + mode
                         + "&prepareThreshold=2")) {
                    c.setAutoCommit(autocommit);
                    work(c, autocommit);
                }
            }
        }
    }

    static void work(Connection c, boolean autocommit) throws Exception {
        say("update", () -> c.createStatement().executeUpdate("UPDATE jobs SET state = 'one'"));
        say("states", () -> one(c, STATES));
        say("prepared, several times", () -> {
            StringBuilder counts = new StringBuilder();
            try (PreparedStatement s = c.prepareStatement("UPDATE jobs SET state = ? WHERE id > 0 OR ?::int > 0")) {
                for (int i = 0; i < 4; i++) {  // past the threshold: from unnamed text to named binary
                    s.setString(1, "ü" + i);
                    s.setInt(2, i);
                    counts.append(s.executeUpdate()).append(' ');
                }
            }
            return counts + one(c, STATES);
        });
        say("returning, by portions", () -> {
            int seen = 0;
            try (PreparedStatement s = c.prepareStatement("DELETE FROM jobs RETURNING id")) {
                s.setFetchSize(7);
                try (ResultSet r = s.executeQuery()) {
                    while (r.next()) seen += r.getInt(1);
                }
            }
            if (autocommit) c.createStatement().executeUpdate("INSERT INTO jobs SELECT i, 'x' FROM generate_series(1, 20) i");
            return seen;
        });
        if (!autocommit) c.rollback();
        say("batch of statements", () -> {
            try (Statement s = c.createStatement()) {
                s.addBatch("INSERT INTO log VALUES (1, 'batch')");
                s.addBatch("UPDATE jobs SET state = 'batched'");
                s.addBatch("DELETE FROM log WHERE id = 1");
                return Arrays.toString(s.executeBatch());
            }
        });
        say("batch of parameters", () -> {
            try (PreparedStatement s = c.prepareStatement("UPDATE jobs SET state = ? WHERE true")) {
                for (String value : new String[] {"a", "b"}) {
                    s.setString(1, value);
                    s.addBatch();
                }
                return Arrays.toString(s.executeBatch()) + one(c, STATES);
            }
        });
        say("several in one", () -> {
            StringBuilder all = new StringBuilder();
            Statement s = c.createStatement();
            boolean isResult = s.execute("SELECT 1; UPDATE jobs SET state = 'among'; SELECT 2, 3");
            while (isResult || s.getUpdateCount() >= 0) {
                all.append(isResult ? rows(s.getResultSet()) : "updated " + s.getUpdateCount() + ";");
                isResult = s.getMoreResults();
            }
            return all;
        });
        say("an error of the server's", () -> c.createStatement().executeUpdate("UPDATE jobs SET id = 1"));
        if (!autocommit) c.rollback();
        say("and on", () -> one(c, "SELECT 'alive'"));
        if (!autocommit) c.commit();
    }

    static void decides(String asking, String deciding) throws Exception {
        for (String mode : new String[] {"extended", "extendedCacheEverything", "simple"}) {
            try (Connection clerk = DriverManager.getConnection(asking);
                 Connection bob = DriverManager.getConnection(deciding + "&prepareThreshold=2&preferQueryMode=" + mode)) {
                System.out.println("--- " + mode);
                CompletableFuture<Integer> update = CompletableFuture.supplyAsync(() -> {
                    try {
                        return clerk.createStatement().executeUpdate("UPDATE jobs SET state = 'live'");
                    } catch (SQLException e) {
                        throw new RuntimeException(e);
                    }
                });
                // A grid reads a first page, with a limit of rows.
                Statement grid = bob.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY);
                grid.setMaxRows(200);
                grid.setFetchSize(200);
                String ticket = null;
                while (ticket == null) {
                    if (!grid.execute("SHOW chaperone.pending")) throw new IllegalStateException("no rows");
                    try (ResultSet r = grid.getResultSet()) {
                        ResultSetMetaData columns = r.getMetaData();
                        while (ticket == null && r.next()) {
                            if (!r.getBoolean("waiting")) continue;
                            ticket = r.getString("ticket");
                            for (int i = 1; i <= columns.getColumnCount(); i++) {
                                Object value = r.getObject(i);
                                System.out.println(columns.getColumnLabel(i) + " " + columns.getColumnTypeName(i) + " "
                                    + columns.getColumnType(i) + " " + columns.getTableName(i)
                                    + (value == null ? "null" : value.getClass().getSimpleName()));
                            }
                            System.out.println("statement: " + r.getString("statement") + " " + r.getBoolean("waiting")
                                + " " + (r.getTimestamp("expires").after(r.getTimestamp("opened"))));
                        }
                    }
                    if (ticket == null) Thread.sleep(10);
                }
                // Often enough that the driver prepares it by name and asks for binary values.
                try (PreparedStatement s = bob.prepareStatement("SHOW chaperone.pending")) {
                    for (int i = 0; i < 4; i++) {
                        try (ResultSet r = s.executeQuery()) {
                            while (r.next() && !r.getString(1).equals(ticket)) {
                            }
                            System.out.println(r.getString(1).equals(ticket) + " " + r.getBoolean("waiting") + " "
                                + r.getObject("opened", java.time.OffsetDateTime.class).isBefore(
                                    r.getObject("expires", java.time.OffsetDateTime.class)));
                        }
                    }
                }
                try (PreparedStatement s = bob.prepareStatement("SHOW chaperone.stats")) {
                    for (int i = 0; i < 4; i++) {
                        try (ResultSet r = s.executeQuery()) {
                            while (r.next()) {
                                if (r.getString(1).equals("tickets_waiting")) System.out.println("waiting " + r.getLong(2));
                            }
                        }
                    }
                }
                if (mode.equals("extended")) {
                    boolean isResult = grid.execute("CALL chaperone.approve('" + ticket + "')");
                    System.out.println("CALL gives rows: " + isResult + " " + rows(grid.getResultSet()).replace(ticket, "ID"));
                } else {
                    try (PreparedStatement s = bob.prepareStatement("CALL chaperone.approve(?, ?)")) {
                        s.setString(1, ticket.toLowerCase());
                        s.setString(2, "ümlaut");
                        System.out.println(s.execute() + " " + rows(s.getResultSet()).replace(ticket, "ID"));
                    }
                }
                System.out.println("updated " + update.get());
                try {
                    grid.execute("CALL chaperone.approve('" + ticket + "')");
                    System.out.println("approved twice");
                } catch (SQLException e) {
                    System.out.println("again: " + e.getSQLState());
                }
                System.out.println(one(bob, "SELECT 'alive'"));

                // A time limit of the client's own, longer than the wait and shorter than it.
                Statement limited = clerk.createStatement();
                limited.setQueryTimeout(20);
                say("a limit that is longer than the wait", () -> {
                    try {
                        return limited.executeUpdate("UPDATE soon SET state = 'live'");
                    } catch (SQLException e) {
                        return e.getSQLState() + " " + e.getMessage().contains("not approved in time");
                    }
                });
                limited.setQueryTimeout(1);
                say("a shorter one", () -> {
                    try {
                        return limited.executeUpdate("UPDATE jobs SET state = 'live'");
                    } catch (SQLException e) {
                        return e.getSQLState();
                    }
                });
                System.out.println(one(clerk, "SELECT 'alive'"));
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("asks")) asks(arguments[1]);
        else decides(arguments[1], arguments[2]);
    }
}
