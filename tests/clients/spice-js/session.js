// @spiceai/spice against a sidewing: what a program does with a client, told as JSON.
//
//     node session.js FLIGHT_HOST:PORT HTTP_URL

const { SpiceClient, Param } = require('@spiceai/spice');

// Integers of 64 bits are numbers here: all of them are small.
const rows = (table) =>
  table.toArray().map((row) => {
    const entries = Object.entries(row.toJSON());
    return Object.fromEntries(entries.map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value]));
  });

const refused = async (call) => {
  try {
    await call();
    return null;
  } catch (error) {
    return String(error.message || error);
  }
};

async function main([flightUrl, httpUrl]) {
  const options = { flightUrl, httpUrl, logging: false, flightTlsEnabled: false };
  const flight = new SpiceClient({ ...options, flightOnly: true });
  const http = new SpiceClient({ ...options, httpOnly: true });
  flight.setMaxRetries(0);
  const sql = 'select id, name from items where id = $1 and name = $2';
  const named = 'select id, name from items where id = $id and name = $name';
  const told = {};
  for (const [name, client] of Object.entries({ flight, http })) {
    told[name] = {
      all: rows(await client.sql('select id, name from items order by id')),
      positional: rows(await client.sql(sql, { parameters: [3, 'c'] })),
      named: rows(await client.sql(named, { parameters: { id: 1, name: 'a' } })),
      refused: await refused(() => client.sql('select * from nowhere')),
    };
  }
  const types = 'select arrow_typeof($1) as a, arrow_typeof($2) as b, arrow_typeof($3) as c, arrow_typeof($4) as d';
  // Its decimals and dates do not come as far as the wire: it fails while it encodes them.
  const parameters = [
    Param.int32(7),
    Param.float32(1.5),
    Param.timestamp(new Date(0), { unit: 'Millisecond' }),
    Param.bool(true),
  ];
  told.typed = rows(await flight.sql(types, { parameters }));
  told.ready = await http.isSpiceReady();
  told.healthy = await http.isSpiceHealthy();
  told.refresh = (await http.refreshAcceleration('kept')).message;
  console.log(JSON.stringify(told));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
