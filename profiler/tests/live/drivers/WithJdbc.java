import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;
import java.util.Timer;
import java.util.TimerTask;
import org.postgresql.PGConnection;

/**
 * What JDBC does: BEGIN in one write with the statement behind it, statements that are prepared from the fifth time on,
 * fetches of a portal, and texts of several statements taken apart.
 */
public final class WithJdbc {
    private static final Connection connection = connect();
    private static final Connection other = connect();

    /** A connection. The driver says these two things first. */
    private static Connection connect() {
        var of = System.getenv();
        var place = of.get("PGHOST") + ":" + of.get("PGPORT") + "/" + of.get("PGDATABASE");
        try {
            var url = "jdbc:postgresql://" + place + "?sslmode=disable";
            var connection = DriverManager.getConnection(url, of.get("PGUSER"), of.get("PGPASSWORD"));
            done("SET extra_float_digits = 3", 0);
            done("SET application_name = 'PostgreSQL JDBC Driver'", 0);
            return connection;
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Tells what was done, by what the driver answered. No text here needs more escaping. */
    private static void tell(String statement, String what) {
        System.out.println("{\"statement\": \"" + statement.replace("\"", "\\\"") + "\", " + what + "}");
    }

    private static void done(String statement, int rows) {
        tell(statement, "\"rows\": " + rows);
    }

    private static void failed(String statement, SQLException error) {
        tell(statement, "\"error\": \"" + error.getSQLState() + "\"");
    }

    private static void skipped(String statement) {
        tell(statement, "\"skipped\": true");
    }

    private static void check(boolean isAsExpected) {
        if (!isAsExpected) {
            throw new IllegalStateException();
        }
    }

    private static int count(ResultSet rows) throws SQLException {
        int count = 0;
        while (rows.next()) {
            count++;
        }
        return count;
    }

    /** Runs a text without parameters. */
    private static void run(Connection by, String text) throws SQLException {
        try (Statement statement = by.createStatement()) {
            boolean hasRows = statement.execute(text);
            done(text, hasRows ? count(statement.getResultSet()) : statement.getUpdateCount());
        } catch (SQLException error) {
            failed(text, error);
        }
    }

    /** Runs a text whose parameters are numbers; gives what the first row says first. */
    private static String run(String text, int... values) throws SQLException {
        var sent = text;
        for (int number = 1; number <= values.length; number++) {
            sent = sent.replaceFirst("\\?", "\\$" + number);
        }
        String first = null;
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int number = 1; number <= values.length; number++) {
                statement.setInt(number, values[number - 1]);
            }
            if (!statement.execute()) {
                done(sent, statement.getUpdateCount());
                return null;
            }
            int rows = 0;
            for (var result = statement.getResultSet(); result.next(); rows++) {
                first = rows == 0 ? result.getString(1) : first;
            }
            done(sent, rows);
        } catch (SQLException error) {
            failed(sent, error);
        }
        return first;
    }

    private static void parametersAndBatches() throws SQLException {
        for (int key = 1; key <= 10; key++) {
            check(run("SELECT name FROM items WHERE id = ?", key).equals("item " + key));
        }
        // A prepared statement that is used again: from the fifth time on the server keeps it.
        try (PreparedStatement above = connection.prepareStatement("SELECT count(*) FROM items WHERE id > ?")) {
            for (int key = 0; key < 12; key++) {
                above.setInt(1, key);
                var rows = above.executeQuery();
                check(rows.next() && rows.getInt(1) == 100 - key);
                done("SELECT count(*) FROM items WHERE id > $1", 1);
            }
        }
        // A batch, and one with an error in its middle.
        var insert = "INSERT INTO items (id, name) VALUES (?, 'batch')";
        var sent = insert.replace("?", "$1");
        try (PreparedStatement batch = connection.prepareStatement(insert)) {
            for (int key = 1000; key < 1020; key++) {
                batch.setInt(1, key);
                batch.addBatch();
            }
            check(Arrays.stream(batch.executeBatch()).peek(rows -> done(sent, rows)).sum() == 20);
            for (int key : new int[] {1020, 1, 1021, 1022}) {
                batch.setInt(1, key);
                batch.addBatch();
            }
            batch.executeBatch();
        } catch (SQLException error) {
            done(sent, 1);
            failed(sent, error);
            skipped(sent);
            skipped(sent);
        }
    }

    private static void transactionsAndCopy() throws Exception {
        // A cursor, within a transaction: one call with several fetches.
        connection.setAutoCommit(false);
        try (PreparedStatement some = connection.prepareStatement("SELECT id FROM items WHERE id <= ? ORDER BY id")) {
            some.setInt(1, 100);
            some.setFetchSize(40);
            done("BEGIN", 0);
            done("SELECT id FROM items WHERE id <= $1 ORDER BY id", count(some.executeQuery()));
        }
        connection.commit();
        done("COMMIT", 0);
        // A transaction that is rolled back.
        run("INSERT INTO items (id) VALUES (?)", 2000);
        done("BEGIN", 0);
        connection.rollback();
        done("ROLLBACK", 0);
        connection.setAutoCommit(true);
        // COPY, both ways.
        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        var lines = new StringBuilder();
        for (int key = 3000; key < 3200; key++) {
            lines.append(key).append("\tcopied\n");
        }
        var from = "COPY items (id, name) FROM STDIN";
        done(from, (int) copy.copyIn(from, new StringReader(lines.toString())));
        var to = "COPY (SELECT id FROM items WHERE id >= 3000) TO STDOUT";
        var target = new StringWriter();
        copy.copyOut(to, target);
        done(to, (int) target.toString().lines().count());
    }

    private static void errorsAndMessages() throws SQLException {
        run("SELECT 1 / ?", 0);
        run("INSERT INTO items (id) VALUES (?)", 1);
        run(connection, "SELEC");
        // Notices, alone and between rows.
        run(connection, "DO $$ BEGIN RAISE NOTICE 'to be read'; END $$");
        try (Statement loud = connection.createStatement()) {
            done("SELECT loud(id) FROM items WHERE id <= 5", count(loud.executeQuery("SELECT loud(id) FROM items WHERE id <= 5")));
            int notices = 0;
            for (var warning = loud.getWarnings(); warning != null; warning = warning.getNextWarning()) {
                notices++;
            }
            check(notices == 5);
        }
        // LISTEN and NOTIFY, while the connection is idle.
        run(connection, "LISTEN news");
        run(other, "NOTIFY news, 'read all about it'");
        check(connection.unwrap(PGConnection.class).getNotifications(10_000).length == 1);
    }

    private static void cancelled() throws SQLException {
        try (Statement statement = connection.createStatement()) {
            var timer = new Timer(true);
            timer.schedule(new TimerTask() {
                @Override
                public void run() {
                    try {
                        statement.cancel();
                    } catch (SQLException error) {
                        throw new IllegalStateException(error);
                    }
                }
            }, 300);
            statement.execute("SELECT pg_sleep(30)");
        } catch (SQLException error) {
            failed("SELECT pg_sleep(30)", error);
        }
    }

    public static void main(String[] arguments) throws Exception {
        parametersAndBatches();
        transactionsAndCopy();
        errorsAndMessages();
        cancelled();
        // A large row.
        check(run("SELECT repeat('x', ?)", 5_000_000).length() == 5_000_000);
        // Several statements in one text.
        var texts = new String[] {
            "SELECT 'a', 1", "SELECT id FROM items WHERE id < 4", "UPDATE items SET note = 'x' WHERE id <= 7"
        };
        try (Statement several = connection.createStatement()) {
            boolean hasRows = several.execute(String.join("; ;", texts));
            for (String text : texts) {
                done(text, hasRows ? count(several.getResultSet()) : several.getUpdateCount());
                hasRows = several.getMoreResults();
            }
        }
        connection.close();
        other.close();
    }
}
