import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;

/** What `pool.py` does, with JDBC, which prepares from the fifth time on. */
public final class Pool {
    private static final String[] TEXTS = {
        "SELECT name FROM items WHERE id = ?", "SELECT note, id FROM items WHERE id = ?"
    };
    private static final String ERROR = "SELECT 1 / (id - id) FROM items WHERE id = 1";

    private static void round(PreparedStatement[] statements, int call) throws SQLException {
        for (var statement : statements) {
            statement.setInt(1, call % 100 + 1);
            try (var rows = statement.executeQuery()) {
                if (!rows.next()) {
                    throw new IllegalStateException("no row");
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        var of = System.getenv();
        var place = of.get("PGHOST") + ":" + of.get("PGPORT") + "/" + of.get("PGDATABASE");
        var url = "jdbc:postgresql://" + place + "?sslmode=disable";
        var input = new BufferedReader(new InputStreamReader(System.in));
        var connections = new Connection[10];
        var statements = new PreparedStatement[10];
        for (int number = 0; number < 10; number++) {
            connections[number] = DriverManager.getConnection(url, of.get("PGUSER"), of.get("PGPASSWORD"));
            statements[number] = connections[number].prepareStatement(TEXTS[number % 2]);
        }
        for (int call = 0; call < 6; call++) {
            round(statements, call);
        }
        System.out.println("ready");
        input.readLine();
        for (int call = 0; call < 50; call++) {
            round(statements, call);
            if (call == 6) {
                Thread.sleep(100);
            }
        }
        for (var connection : connections) {
            try (var statement = connection.createStatement()) {
                statement.execute(ERROR);
            } catch (SQLException error) {
                if (!error.getSQLState().equals("22012")) {
                    throw error;
                }
            }
        }
        System.out.println("done");
        input.readLine();
    }
}
